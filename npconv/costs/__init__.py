"""What an algorithm costs: how long it should take, and what memory it works in.

The figures of `Textbook` for float32 are near what ``pytest bench`` shows for one core of a server of 2023; the others,
and all of CUDA's, are guesses from them. They serve to rank candidates and to tell milliseconds from minutes, no more.

`Textbook` is the model of textbook algorithms, `Engine` that of engines, of which each has a class that tells what it
does in another way than most.
"""

from npconv.costs.cost import Cost
from npconv.costs.direct import Direct
from npconv.costs.engine import Engine
from npconv.costs.groups import Depthwise, Grouped
from npconv.costs.large_kernels import Dense, Dots, Outer, Pieces
from npconv.costs.planes import Planes
from npconv.costs.strassen import Strassen
from npconv.costs.textbook import Textbook, plane_matrix, region_matrix
from npconv.costs.winograd import Winograd

__all__ = [
    "Cost",
    "Dense",
    "Depthwise",
    "Direct",
    "Dots",
    "Engine",
    "Grouped",
    "Outer",
    "Pieces",
    "Planes",
    "Strassen",
    "Textbook",
    "Winograd",
    "plane_matrix",
    "region_matrix",
]
