"""Problems for the fast engines, and how results are judged. Programs of their own import this: it needs no torch."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from corpus import Case, parse

import npconv
from npconv import costs, recall
from npconv.kernels import filtering
from npconv.kernels.numba import bands, blocking, piecing

DIRECT = ("direct", "planes")
WINOGRAD = ("winograd2", "winograd2x4", "winograd4", "pieces")
TERMWISE = (*DIRECT, "depthwise", "grouped", "dots", "outer", "dense")
"""Those that add up products as they are, so that NaN and infinity stay where they belong."""

EXACT = (*TERMWISE, "strassen")
"""Those whose results of small whole numbers are exact."""

FAST = (*EXACT, *WINOGRAD)
"""The fast engines of the Numba backend; test_frame shows that none is missing here."""

CHOOSY = set(FAST) - set(DIRECT)
"""Those that take some problems only."""

COUNTS = (1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 65)
"""Channels and filters around whole vectors and panels of every width."""

PIECES = (
    # Kernels of one piece and of many steps, panels that overlap; strides, which here are dilations of a gradient.
    "mb33ic2oc40ih6iw9kh4kw7+bias",
    "mb70ic3oc33ih10iw13kh9kw11ph1:0pw0",
    "mb33ic2oc34ih13iw14kh9kw9sh2",
    "mb40ic7oc32ih6kh4",
    "mb40ic2oc32ih30iw33kh28kw31+bias",
    "mb32oc65ih9iw12kh7kw12ph1pw2+bias",
    "mb34ic2oc37id2ih17iw15kd1kh9kw7sd2sh2+reflect",
    # Other results than 3 × 3 and 5 × 5, other ones down than across, and along one axis.
    "mb9ic2oc17ih10iw12kh9kw11+bias",
    "mb33ic2oc34ih12iw13kh9kw10",
    "mb12ic2oc20ih6iw20kh5kw16ph1pw0",
    "mb20ic3oc24iw41kw39+bias",
    "mb8oc40ih5iw9kh5kw6",
    # Dilations, which are strides of a gradient: of both axes, of one, of three and four results.
    "mb17ic2oc40ih13iw15kh6kw7dh2+bias",
    "mb40oc33ih14iw12kh6kw5dh2",
    "mb5ic2oc18ih11iw12kh5kw8dh2dw1",
    "mb70ic2oc36ih33iw27kh16kw14dh2pw1",
    # Groups, whose filters fill a panel, a part of it, or more; few filters, few images.
    "mb16g3ic6oc48ih11iw12kh9kw10+bias",
    "mb20g4ic4oc60ih9iw11kh7kw9ph1:0",
    "mb8g2ic2oc80ih13iw15kh6kw7dh2+bias",
    "mb40g2ic4oc10ih9iw8kh7kw6",
    "mb2ic2oc50ih9iw8kh8kw7",
    "mb50oc3ih19iw18kh17kw16",
    "mb7oc7ih9iw8kh7kw6+bias",
)
"""Problems for the engine of this name."""

STRASSEN = (
    # One pixel, odd numbers of them, several tasks; panels cut short, in odd numbers; chains of unequal lengths.
    "ic64oc64ih1+bias",
    "ic66oc70iw3",
    "mb2ic64oc129ih5iw7+bias",
    "ic130oc97ih23iw19",
    "ic258oc65ih3iw37+bias",
    "ic390oc161ih2iw4",
    "ic64oc330ih15iw17",
    # Strides, rows that are cut, three axes, paddings.
    "mb2ic128oc80ih9iw11sh2sw1+bias",
    "ic70oc64ih3iw233sh2",
    "mb2ic64oc66id3ih4iw5+bias",
    "ic68oc100id4ih9iw7sd2sh3",
    "ic64oc90ih6iw4ph1:2pw0:3+bias",
    "ic66oc66id2ih4iw3ph1pd1+reflect",
    # Pixels in the vectors: whole units, half ones, units that overlap the one before; filters in odd numbers of tiles.
    "ic64oc64ih8+bias",
    "ic70oc66ih2iw31",
    "mb2ic66oc70ih12iw16+bias",
    "ic130oc98ih28",
    "ic96oc74ih23iw30+bias",
    # At strides: every second pixel of rows that are longer than a vector, or shorter, and others.
    "mb2ic64oc80ih31iw32sh2+bias",
    "ic70oc64ih15iw47sh2",
    "ic64oc68ih43iw14sh2",
    "ic64oc66ih8iw31sh1sw2+bias",
    "ic66oc64ih22iw46sh3",
    "ic64oc66id3ih8iw8sd2sh1sw1",
    # Pixels beyond whole vectors: odd and even numbers, more than a tile has, shared out over tasks; channels that are
    # no whole vectors.
    "mb2ic72oc66ih5iw7+bias",
    "ic64oc98ih14",
    "ic140oc74ih6iw7+bias",
    "ic64oc66id2ih13iw13",
    "ic100oc70ih11iw65sh2sw1",
    "ic64oc64ih3iw43sh2+bias",
    # Planes that are too small, by two pixels.
    "ic66oc64id4ih6iw5",
    "ic66oc64id4ih11iw11sd1sh2sw2",
)
"""Problems for the engine of this name."""

OUTER = (
    # Results of one position, filters or images in the vectors, read in blocks of 512 elements and less.
    "mb64ic2oc48ih20iw31kh20kw31",
    "mb48ic1oc70ih9iw8kh9kw8+bias",
    "mb20ic70oc16ih7kh7",
    "mb33ic3oc31ih25iw27kh9kw9dh3dw3ph0pw0:2",
    "mb9ic2oc5iw1500kw1500",
    "mb3ic1oc40iw1100kw1100pw0+bias",
    # And such as are smaller than the image, of which the stride leaves the rest.
    "mb48ic2oc40ih8iw10kh8kw8sw3+bias",
    "mb3ic2oc33id3ih5iw9kd3kh5kw6sw4",
    # Several positions: padding, blocks of rows and of columns, strides in both, three axes.
    "mb5ic3oc33ih30iw31kh28kw29dh1ph1pw1+bias",
    "mb9ic2oc17ih41iw43kh20kw21dh2dw2ph1pw0:1",
    "mb3ic1oc65iw1301kw600dw2pw3sw5",
    "mb4ic5oc20ih33iw20kh9kw8sh3dh3dw2ph2",
    "mb2ic3oc19id6ih9iw10kd4kh5kw6dd1dh2pd1ph2pw0:1+bias",
    "mb7ic2oc34id5ih14iw12kd3kh12kw10sd2",
    "g3ic6oc60ih12iw13kh9kw10ph1",
    "mb40g2ic4oc64ih8kh8+bias",
    "mb8ic9oc16ih9iw12kh7kw12ph1pw2+reflect",
)
"""Problems for the engine of this name."""

DOTS = (
    # Four filters a group and more, which are computed together: fours of them that overlap; results in threes, fours
    # and fives, of more planes; rows of whole vectors, ends of rows, rows of less than a vector; long rows; strides;
    # dilations.
    "mb2g3ic3oc12ih30iw26kh28kw24ph0+bias",
    "mb3g2ic2oc10ih14iw37kh14kw37ph1pw1",
    "g2ic4oc14ih17iw20kh15kw16+bias",
    "mb2g3ic3oc15ih9iw5kh8kw3ph2pw1+reflect",
    "g2ic2oc8ih70iw3kh66kw1ph1",
    "ic1oc7iw1200kw1190+bias",
    "mb2ic2oc6ih3iw700kh2kw690pw2",
    "mb2g2ic2oc10ih40iw43kh20kw21sh3sw2ph1:0pw0:2+bias",
    "mb2g3ic3oc18ih33iw50kh16kw24dh2dw2ph1pw1",
    "mb2g2ic2oc8ih50iw40kh16kw12dh3dw3",
    "g2ic4oc14id5ih18iw19kd2kh17kw17pd1pw1+bias",
    # Few planes, of which tasks have some filters each.
    "mb3oc22ih31iw33kh15kw16dh2+bias",
    "oc13ih40iw37kh38kw33+bias",
    "mb3ic2oc30ih20iw27kh19kw25",
)
"""Problems for the engine of this name."""

DENSE = (
    # One pixel, and several; less than a vector, whole ones and more; fewer filters than a tile's, and such as overlap.
    *(f"ic{n}oc{m}ih1+bias" for n, m in zip(COUNTS, COUNTS[6:] + COUNTS[:6], strict=True)),
    "mb4ic70oc9ih1iw1+bias",
    "mb3ic5oc33ih4iw7kh4kw7",
    "mb2ic33oc70iw9kw9+bias",
    "ic3oc4id2ih5iw3kd2kh5kw3sd1sh3sw2+bias",
    "ic2049oc65ih1",
    "ic40oc20ih9iw11kh9kw11+bias",
    # Several images: more of them than filters or fewer, too few of one for a tile, and such as overlap; stretches of
    # every length, ends of less than a vector, planes.
    "mb5ic40oc9ih1+bias",
    "mb9ic17oc3ih1+bias",
    "mb70ic16oc1ih1",
    "mb13ic6oc40ih5iw7kh5kw7+bias",
    "mb40ic2oc51ih9iw11kh9kw11",
    "mb6ic1oc10ih60iw61kh60kw61+bias",
    "mb5ic3oc20id2ih5iw3kd2kh5kw3sd1sh3sw2+bias",
    "mb8ic5oc8ih4iw4kh4kw4",
)
"""Problems for the engine of this name."""

GROUPED = (
    # Groups of every size in a vector of any width, one by one and several; filters that end with a cut tile.
    "g8ic16oc16ih5iw7kh3ph1+bias",
    "g10ic20oc20ih6iw9kh3ph1",
    "mb2g9ic36oc36ih7iw10kh3ph1+bias",
    "g5ic40oc40ih9iw6kh3ph1:0pw0:2",
    "g3ic48oc48ih6iw8kh3ph1+bias",
    # Rows of results that are read as they are but for their ends; windows beyond the image on one side or on both.
    "mb2g4ic16oc16ih4iw75kh3ph1+bias",
    "g9ic18oc18ih3iw81kh3ph2:0pw5:1",
    "g2ic16oc16ih70iw68kh3",
    "g4ic32oc32ih5iw80kh3dw2dh1ph1pw1:3",
    "g8ic16oc16ih9iw139kh3sh2ph1",
    # Strides, dilations, taps of every width, one tap, three axes, other paddings.
    "g6ic24oc24ih11iw13kh3sh2ph1+bias",
    "g4ic32oc32ih9iw14kh5ph2",
    "g8ic32oc32ih17iw15kh7sh2ph3+bias",
    "g4ic16oc16ih12iw40kh4kw9ph1pw4",
    "mb3g5ic20oc20ih6iw7",
    "g4ic32oc32ih8iw11sh2sw3+bias",
    "g7ic28oc28ih12iw15kh3dh2dw3ph2pw3",
    "g8ic32oc32iw100kw3pw1+bias",
    "mb2g8ic32oc32id4ih5iw6kd3kh3pd1ph1+bias",
    "g4ic16oc16ih9iw10kh3ph1+reflect",
    # Planes of rectangles that are lower than the others: of two threads, and of tasks that are full.
    "g8ic16oc16id1ih7iw7kd2kh1pd0:1ph0",
    "g4ic16oc16id3ih70iw60kd3kh3pd1ph1+bias",
    "g8ic16oc16id3ih67iw70kd2kh3sd1sh2pd1ph1",
    "g3ic24oc24ih2iw3kh5kw7ph3pw4:3",
)
"""Problems for the engine of this name."""

SHAPES = (
    # Points that two threads share: whole lines of the cache, for so many panels that they go past the caches.
    "ic32oc144ih20iw21kh3ph1",
    # Channels and filters, which end within a vector, with one, or one behind it.
    *(f"ic{n}oc{m}ih5iw7kh3ph1+bias" for n, m in zip(COUNTS, COUNTS[5:] + COUNTS[:5], strict=True)),
    *(f"ic{n}oc{n}ih4iw9" for n in COUNTS),
    # Groups: depthwise with 1 to 9 filters a channel, and wider ones.
    *(f"g{n}ic{n}oc{n * m}ih6iw11kh3ph1+bias" for m, n in enumerate((1, 3, 8, 9, 16, 17, 5, 33, 2), 1)),
    *(f"g{n}ic{n}oc{n * m}ih9iw20kh3sh2ph1" for n, m in zip((9, 17, 8, 3, 5), (1, 2, 1, 3, 9), strict=True)),
    "g8ic8oc8ih5iw21kh3kw5sh1sw3pw2",
    # Depthwise with as many rows as are computed together, more, and less; rows of many vectors; square kernels.
    "g5ic5oc5ih7iw14kh3ph1+bias",
    "g3ic3oc3ih10iw110kh3ph1",
    "g3ic3oc6ih23iw5kh3dh2ph2+bias",
    "g4ic4oc4ih14iw9kh5ph2",
    "g2ic2oc2ih12iw33kh4ph1:2pw2:1+bias",
    "g2ic2oc4ih9iw7kh7ph3",
    "g2ic2oc2ih18iw31kh6sh2ph3",
    "g2ic6oc14ih7iw8kh3ph1+bias",
    "g3ic27oc48ih6iw5kh2kw3ph1:0pw0:2",
    "g4ic32oc4ih9iw17kh3sh2ph1",
    # Patches that do not overlap, of few channels: their rows are met where they are.
    "mb2ic3oc20ih13iw17kh4kw3sh4sw5+bias",
    "g2ic6oc10ih9iw11kh2sh3",
    "ic7oc70ih17iw25kh8sh8+bias",
    # One axis, and images of one row or column.
    *(f"ic3oc5iw{n}kw3pw1+bias" for n in (1, 2, 15, 16, 17, 33)),
    *(f"ic17oc9iw{n}kw4sw2pw3:0" for n in (1, 9, 40, 41)),
    *(f"g9ic9oc9iw{n}kw3sw2pw1" for n in (16, 17, 18, 34)),
    "ic4oc3ih1iw37kw5pw2",
    "ic4oc3ih37iw1kh5kw1ph2pw0",
    "mb2ic33oc9ih1iw19+bias",
    # Kernels larger than the image, and windows wholly within the padding.
    "ic5oc6ih2iw3kh5kw7ph3pw4:3+bias",
    "ic3oc17ih1kh3ph5",
    "g5ic5oc5ih2iw1kh4ph3pw3:4",
    "ic2oc3ih2kh2dh5ph5",
    # Strides and dilations, of one tap too, where only what the stride meets is loaded.
    "mb2ic9oc17ih11iw13sh2sw3+bias",
    "ic16oc8ih9iw15sh3sw2ph1",
    "ic7oc19ih13iw12kh3sh2ph1",
    "ic12oc16ih14iw23kh3kw1sh2sw4ph0:2pw0",
    "ic8oc8ih17iw19kh3sh3ph2:0",
    "ic10oc15ih13iw15kh3dh2dw3ph2pw3",
    "ic3oc7ih15iw20kh3sh2sw3dh3dw2ph1",
    "g6ic6oc12ih15iw18kh3sh2dh2dw3ph2",
    "ic2oc2ih30iw31kh7sh2ph3",
    # Many tiny images, which direct puts together.
    "mb7ic5oc9ih1",
    "mb37ic8oc17ih2kh2pw1ph0+bias",
    "mb11ic3oc33ih3kh3ph1",
    "mb5g3ic9oc6ih2iw3kh2ph1",
    "mb64ic4oc4iw1",
    # Three axes, and other paddings than zeros.
    "mb2ic3oc9id3ih5iw6kd3pd1+bias",
    "ic17oc7id4ih3iw5kd2kh1kw3sd2sh1pd1:0ph0pw1",
    "g4ic4oc8id3ih4iw9kd3dd2dh1dw2pd2ph1+bias",
    "ic5oc6ih5iw6kh3ph2:1pw1:3+reflect+bias",
    "g3ic3oc6ih4iw3kh3sh2ph1+replicate",
    "ic9oc8ih5iw4kh3ph2+circular",
    # Results wide enough for several tasks, blocks of the cache and chains of sums.
    "ic40oc70ih31iw45kh3ph1+bias",
    "ic300oc7ih12+bias",
    "ic70oc9ih9iw5kh3kw5",
    "g20ic20oc20ih40iw43kh3ph1",
    "ic3oc8ih61iw75kh5sh2ph2",
    "ic1oc1ih40kh29",
    # Planes that meet in the sets of a cache, with channels in whole blocks and cut ones, at strides 1 and 2.
    "ic20oc17ih32kh3ph1+bias",
    "mb2ic33oc9ih64iw48kh3ph2:0",
    "ic40oc9ih32iw64kh3sh2ph1+bias",
    "ic12oc9ih32iw96sh2",
    # Slivers: one row, rows in place, rows that end with one, groups of them, one at a time and several.
    "mb2ic24oc13iw70+bias",
    "ic19oc33ih6iw15sh1",
    "ic9oc40ih13iw31sh2",
    "ic5oc29ih5iw33kh3ph1pw0",
    "g2ic6oc26ih7iw9kh3ph1+bias",
    "ic310oc14ih3iw9kh3ph1",
    "ic14oc300iw9",
    # What Winograd takes: tiles cut at every place.
    *(f"ic{32 + n}oc{n}ih{n}iw{14 - n}kh3ph1+bias" for n in range(1, 13)),
    "mb3ic33oc47ih7iw3kh3",
    "ic48oc65ih17iw22kh3ph2:0pw0:3",
    "ic40oc33ih11iw14kh3dh2dw3ph1",
    "ic35oc9ih3kh3dh2ph2",
    "ic33oc34ih9iw12kh5ph2+bias",
    "ic64oc16ih6iw7kh5dh2dw1ph4",
    # Pixels of whole kibibytes, which lie further apart: as they are, and folded.
    "mb2ic256oc40ih6iw9kh3ph1+bias",
    "ic64oc33ih9iw12kh7ph3+bias",
    "ic128oc9ih13iw10kh7sh2ph3",
    "ic32oc8id3ih5iw6kd1kh3ph1pd0",
    "ic150oc70ih9iw10kh3ph1+bias",
    "ic32oc5ih6iw5kh3ph1+circular",
    "mb2ic40oc40ih35iw38kh3ph1",
    # Tiles that are short along one axis, the other, or both: of several images, groups, residues, rows and volumes.
    "mb3ic36oc70ih13iw18kh3ph1+bias",
    "mb2g2ic66oc40ih10kh3ph1+bias",
    "ic40oc33ih20iw28kh3dh2ph2",
    "ic40oc88ih9iw8kh3dh4ph4",
    "mb2ic40oc33ih19iw37kh3sh2ph1+bias",
    "ic18oc9id3ih14iw9kd3kh3ph1pd1+bias",
    "mb2ic20oc33ih33iw22kh7sh2ph3",
    "ic33oc34ih5iw9kh5ph2",
    "ic20oc17ih14iw11kh2+bias",
    "ic35oc20ih12iw14kh4",
    "mb2ic17oc20ih18iw11kh9ph4",
    "ic40oc40ih70iw50kh3ph1",
    # The same at stride 2, for two taps, along one axis, and in volumes.
    "ic40oc33ih11iw14kh3sh2ph1+bias",
    "ic33oc17ih9iw13kh2ph1:0",
    "ic35oc40ih13iw15kh4sh2ph1:2",
    "ic34oc18ih9iw12kh3kw2sh1sw1ph0:3",
    "ic40oc33ih11iw14kh5sh2ph1:0",
    "mb2ic33oc20iw37kw3pw1+bias",
    "ic35oc9id5ih7iw9kd3kh3sd2dd1pd1ph1+bias",
    "ic34oc19ih12iw17kh3kw4sh1sw2ph2+reflect",
    "mb2ic40oc20id6ih5iw7kd5kh3pd1ph1+bias",
    "ic43oc9id20ih4iw5kd17kh2pd1ph0",
    # Kernels of four, and long ones at stride 2, whose residues are folded: few channels and many, one axis and both.
    "ic40oc33ih11iw14kh4ph1:2+bias",
    "mb2ic3oc17ih23iw30kh7sh2ph3+bias",
    "ic33oc20ih19iw16kh7sh2ph0:3pw2+reflect",
    "mb2ic16oc9ih9iw40kh7kw3sh2ph3pw1",
    "ic18oc9id5ih13iw17kd3kh7sd2sh2pd1ph3",
    # Larger strides, on one axis and both, of few channels, of one, of groups, along other axes.
    "mb2ic3oc17ih40iw37kh11sh4ph2+bias",
    "ic5oc33ih23iw30kh7kw8sh3sw4ph3+reflect",
    "ic1oc20ih19iw26kh7kw16sh2sw4ph3",
    "mb2g2ic6oc10ih21iw25kh6sh3sw2ph1+bias",
    "ic20oc9id4ih16iw19kd3kh5sh3pd1ph2:0",
    "ic2oc35iw90kw9sw4pw3+bias",
    # Long ones at stride 1, in blocks of taps.
    "ic1oc18ih15iw14kh9ph4+bias",
    "mb2ic33oc40iw38kw7pw3+bias",
    "ic16oc20ih19iw16kh9dh2ph8:3pw2+reflect",
    # Tiles of several images together, or of several residues of a dilation.
    "mb9ic40oc33ih7iw5kh3ph1+bias",
    "mb3ic36oc33ih11iw14kh3dh7dw6ph7pw6+bias",
    "mb2ic40oc40ih2kh3dh3dw4ph3pw4",
    # Several groups of many channels: panels cut short in each, batches, strides, dilations, other axes.
    "g2ic70oc66ih9iw11kh3ph1+bias",
    "mb2g3ic99oc51ih7iw6kh3+bias",
    "g2ic68oc34ih11iw14kh3dh2dw3ph1",
    "mb2g2ic66oc70ih9iw13kh3sh2ph1+bias",
    "g3ic99oc6ih6iw7kh5ph2",
    "g4ic12oc20ih23iw19kh7sh2ph3+reflect+bias",
    "g2ic72oc40iw37kw3pw1+bias",
    "g2ic66oc64id4ih5iw6kd3kh3pd1ph1+bias",
    # Kernels larger than their results.
    *PIECES,
    # Products of matrices.
    *STRASSEN,
    *OUTER,
    *DENSE,
    *DOTS,
    *GROUPED,
    "mb2g3ic3oc6ih33iw37kh31kw35+bias",
    "g5ic10oc5ih20iw23kh18kw17ph1+bias",
    "g9ic9oc9ih29iw31kh14kw15dh2ph1+reflect",
    "ic2oc3id5ih9iw40kd4kh8kw33sw3dh1pw2",
    "g3ic3oc3iw100kw90pw4",
    "g9ic9oc18ih28iw40kh14kw20dh2dw2ph1:0pw1:0+bias",
    "g40ic80oc40ih16iw16kh14kw14+bias",
    "g3ic3oc3ih9iw200kh9kw200ph1pw1",
    "g4ic4oc4ih18iw50kh6kw50dh3dw1ph0pw1",
    "g3ic3oc3ih3iw10kh9kw9ph4pw1:0",
    "mb3g17ic17oc17ih15iw41kh7kw20dh2dw2sh1sw2ph0pw1:0",
    # Depthwise: sums of every height, steps that some results do not meet, rows shorter than a vector.
    "mb2g90ic90oc90ih14kh3ph1+bias",
    "g33ic33oc66ih7iw9kh3ph1",
    "mb2g40ic40oc40ih13iw17kh5ph2+bias",
    "g35ic35oc35ih20iw33kh7ph3+bias",
    "g34ic34oc68ih23iw40kh5sh2ph2",
    "g40ic40oc40ih15iw16kh7sh3ph3",
    "g40ic40oc40ih12iw21kh3dh2ph2",
    "g36ic36oc36ih9iw20kh4sh3sw1ph1:0pw0:2",
    "g40ic40oc40ih4iw5kh6ph3",
    "mb2g32ic32oc32id4ih6iw19kd3kh3ph1pd1+bias",
    "g33ic33oc33iw100kw3pw1",
    "g40ic40oc40iw70kw5sw2",
    "g1ic1oc1ih70iw300kh3ph1",
    # Channels that are put side by side first: several tasks of them, the last of which overlaps another.
    "mb2g83ic83oc83ih7kh3ph1+bias",
    "g150ic150oc150ih13iw11kh5sh2ph2+bias",
    "mb3g67ic67oc67ih14iw13kh5ph2",
    "g77ic77oc77ih9iw10kh3dh2dw1ph2pw1+reflect",
    # Some rows of them, and of what these meet (with AVX-512).
    "g64ic64oc64ih130iw36kh7sh2ph3",
    # Depthwise with strides: rows that no result needs, between what the last one meets and the image's end.
    "g5ic5oc5ih22iw18kh3sh2",
    "mb2g40ic40oc40ih6iw5kh3sh2+bias",
    "g3ic3oc6ih11iw20kh2sh3sw1",
    "g3ic3oc3ih12iw37kh4kw2sh3sw2ph1:0pw0",
    # Few filters that meet pixels where they are, of some channels at a time: tiles of every height, the last of which
    # ends with the image; and images that are smaller than a tile.
    "mb2ic19oc1ih9iw13+bias",
    "ic26oc2iw2100+bias",
    "mb2ic40oc11ih10iw17",
    "ic24oc3ih5iw7+bias",
    "ic23oc6ih9iw15sh2",
    # Many, at a stride: every second pixel cut from where it is, vectors of one row and of two, the last sliver over
    # the one before, first tiles of every height, some slivers at a time, several images, groups, tasks and planes.
    "ic6oc12ih40iw67sh2+bias",
    "mb2ic3oc14ih9iw33sh3sw2",
    "ic5oc31ih6iw63sh1sw2+bias",
    "mb3g2ic10oc40ih7iw36sh2",
    "ic300oc20ih12iw32sh2+bias",
    "ic4oc17id5ih7iw35sd2sh2",
    "ic3oc33ih30iw600sh2",
    "ic7oc16iw131sw2",
    # Pixels beyond whole vectors of one tap: one to as many as fit, channels that are no whole vectors, several tasks.
    "mb2ic70oc23iw33+bias",
    "ic65oc13ih2iw17",
    "g2ic140oc60ih5iw7",
    "ic100oc40ih14",
    "ic64oc12ih3iw35+bias",
    "ic90oc17ih6iw7+bias",
    "ic70oc31ih27iw27sh2",
    "mb2ic65oc44ih5iw37sh2+bias",
    # Dilations about as long as the image: regions of few pixels and of many, that meet one tap and all of them.
    "ic40oc70ih9iw13kh3dh5dw4ph5pw4+bias",
    "mb2g2ic16oc48ih17iw30kh3dh7dw9ph7pw9",
    "ic9oc130ih33iw21kh3sh2dh9dw13ph9pw13+bias",
    "ic5oc40id6ih9iw12kd3kh3kw3dd4dh7dw9pd4ph7pw9",
    "mb2ic300oc40ih12iw32kh3dh9ph9",
    "ic8oc64ih19iw16kh5dh6dw5ph12pw7:10",
    "ic33oc40iw50kw3dw19pw19+bias",
)  # fmt: skip

RARE = re.compile("k[hw]([24-9]|[1-9][0-9])|s[hw][3-9]")
"""Kernels and strides for most of which some more has to be compiled, about a second for each."""

COMMON = tuple(
    text for text in SHAPES if text in {*PIECES, *STRASSEN, *OUTER, *DENSE, *DOTS, *GROUPED} or not RARE.search(text)
)
"""The other problems: for vectors of other widths, those of float64 or of another machine."""


SPECIALISED = ("depthwise", "grouped", "winograd2", "winograd2x4", "winograd4")
"""Engines that compile sums or transforms for each size of filters."""


def few_kernels(algorithm: str) -> tuple[str, ...]:
    """The common problems, of those engines such as most of which one kernel serves."""
    if algorithm in SPECIALISED:
        return tuple(text for text in COMMON if "kh3" in text and not re.search("kw[12]|d[dhw]|id", text))
    return COMMON


def texts_for(dtype: str, algorithm: str, everything: bool) -> tuple[str, ...]:
    """The problems to be computed in a dtype, all of them, or as many as there is time for."""
    if everything:
        return SHAPES
    if dtype == "float64":
        return few_kernels(algorithm)
    if algorithm not in SPECIALISED:
        return SHAPES
    # Without the long kernels meant for other engines, and with every other of the rare ones: each is compiled for
    # itself.
    long = {*OUTER, *DOTS}
    rare = [text for text in SHAPES if text not in COMMON and text not in long]
    return (*(text for text in COMMON if text not in long), *rare[::2])


def ordinary(algorithm: str) -> str:
    """A problem that an engine takes."""
    if algorithm == "pieces":
        return "mb40ic3oc40ih6iw7kh4kw5+bias"
    if algorithm == "outer":
        return "mb9ic5oc40ih6iw7kh4kw5ph0:1+bias"
    if algorithm == "dense":
        return "mb2ic40oc40ih3iw4kh3kw4+bias"
    if algorithm == "strassen":
        return "mb2ic70oc65ih5iw6sh2ph1+bias"
    groups = {"depthwise": 40, "dots": 40, "grouped": 10}.get(algorithm, 1)
    return f"g{groups}ic40oc40ih5iw6kh3ph1+bias"


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def named(dtype: str) -> np.dtype[Any]:
    """The dtype of a name, which for bfloat16 is ml_dtypes's."""
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def layouts(texts: tuple[str, ...]) -> Iterator[str]:
    """Each problem with channels first and with channels last."""
    for text in texts:
        yield text
        yield text + "+last"


def call(case: Case, arrays: Arrays, **options: Any) -> Any:
    """npconv's answer."""
    return getattr(npconv, f"conv{case.rank}d")(*arrays, **case.arguments | options)


@cache
def refusals(case: Case, dtype: str) -> dict[tuple[str, str], str]:
    """Why engines do not take a problem: asked by each anew, it took a fifth of the time at guard pages."""
    found = npconv.explain(
        f"conv{case.rank}d", case.input_shape, case.weight_shape, **case.arguments, dtype=named(dtype), backend="numba",
        precision="default",
    )  # fmt: skip
    return dict(found.refusals)


def refusal(case: Case, dtype: str, algorithm: str) -> str | None:
    """Why an engine does not take a problem."""
    return refusals(case, dtype).get(("numba", algorithm))


def forget() -> None:
    """Forget what follows from the model of costs, the limits of workspace, and which tiles are short."""
    piecing.cut.cache_clear()
    bands.cut.cache_clear()
    filtering.last_axes.cache_clear()
    recall.forget()
    refusals.cache_clear()


@contextmanager
def packing_within(limit: int | None = None) -> Iterator[None]:
    """Let engines that can pack filters within their tasks, Winograd's in so many bytes of workspace."""
    kept = costs.Engine.within_tasks, blocking.engine_limit
    try:
        costs.Engine.within_tasks = lambda cost, *given: cost.may_be_within(*given)
        if limit is not None:
            blocking.engine_limit = lambda problem: limit
        forget()
        yield
    finally:
        costs.Engine.within_tasks, blocking.engine_limit = kept
        forget()


@cache
def data(text: str, dtype: str, whole: bool = True) -> Arrays:
    """Input, weight and bias: ``whole`` numbers from -4 to 4 without 0, whose sums are exact, or normal ones."""
    case, to = parse(text), named(dtype)
    rng = np.random.default_rng(zlib.crc32(text.encode()))

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(1, 5, shape) * rng.choice([-1.0, 1.0], shape) if whole else rng.standard_normal(shape)

    def draw(*shape: int) -> np.ndarray:
        return (numbers(*shape) + (1j * numbers(*shape) if to.kind == "c" else 0)).astype(to)

    return draw(*case.input_shape), draw(*case.weight_shape), draw(case.filters) if case.bias else None


@cache
def exact(text: str, dtype: str) -> np.ndarray:
    """The exact result of whole numbers, as NumPy's im2col has it."""
    return call(parse(text), data(text, dtype), backend="numpy", algorithm="im2col")


@cache
def wanted(text: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The result of normal numbers in twice the precision, and the error that Winograd's engines are allowed."""
    case, wide = parse(text), np.complex128 if named(dtype).kind == "c" else np.float64
    arrays = [None if array is None else array.astype(wide) for array in data(text, dtype, False)]
    want = call(case, arrays, backend="numpy", algorithm="im2col")
    sizes = call(case, [None if a is None else np.abs(a) for a in arrays], backend="numpy", algorithm="im2col")
    to = named(dtype)
    inner = np.dtype("f4") if to.itemsize < 4 else to
    bound = max(64, 8 + math.sqrt(case.products)) * np.finfo(inner).eps * sizes.max(initial=0)
    if inner != to:
        bound = bound + np.abs(want) * float(ml_dtypes.finfo(to).eps)
    return want, np.broadcast_to(bound, want.shape)


def judge(got: np.ndarray, text: str, dtype: str, algorithm: str) -> str | None:
    """What is wrong with a result for `data` of the kind that `arrays_for` gives; None if nothing is."""
    if algorithm in WINOGRAD:
        want, bound = wanted(text, dtype)
        right = np.abs(got.astype(want.dtype) - want) <= bound if got.shape == want.shape else np.zeros(1, bool)
    else:
        want = exact(text, dtype)
        right = got == want if got.shape == want.shape else np.zeros(1, bool)
    if got.dtype != named(dtype):
        return f"{algorithm} {dtype} {text}: dtype {got.dtype}"
    if right.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~right)[0]) if right.shape == want.shape else ()
    return (
        f"{algorithm} {dtype} {text}: {np.count_nonzero(~right)} of {want.size} elements are wrong, the first at {at}: "
        f"{got[at]}, not {want[at]}"
    )


def arrays_for(text: str, dtype: str, algorithm: str) -> Arrays:
    """Whole numbers for the direct sums, normal ones for Winograd's."""
    return data(text, dtype, algorithm in EXACT)


def taken(texts: tuple[str, ...], dtype: str, algorithm: str) -> Iterator[tuple[str, Case]]:
    """The problems that an engine takes, in both layouts."""
    for text in layouts(texts):
        case = parse(text)
        if refusal(case, dtype, algorithm) is None:
            yield text, case


def check(texts: tuple[str, ...], dtype: str, algorithm: str, **options: Any) -> int:
    """Run an engine on all problems that it takes, and return how many these are; wrong results are an error."""
    wrong, number = [], 0
    for text, case in taken(texts, dtype, algorithm):
        for _ in range(2):  # the second call goes a shorter way
            got = call(case, arrays_for(text, dtype, algorithm), backend="numba", algorithm=algorithm, **options)
            wrong.append(judge(got, text, dtype, algorithm))
        number += 1
    said = [text for text in wrong if text is not None]
    assert not said, "\n".join(said[:20])
    return number
