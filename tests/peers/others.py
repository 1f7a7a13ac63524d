"""Layers of other networks than tests/corpus.py's, and of sizes that nobody chose: where a choice among engines fails.

The first such list found some: a dense layer of one image took 12 times as long as onnxruntime's, groups by direct sums
three times as long as by Winograd's tiles. It had one 3 × 3 layer of 3 to 31 channels at stride 1, and
nobody saw that all of these took up to three times too long.
"""

OTHERS = {
    "MobileNetV2": (
        "ic3oc32ih224kh3sh2ph1", "ic32oc16ih112", "ic16oc96ih112", "g96ic96oc96ih112kh3sh2ph1", "ic96oc24ih56",
        "g144ic144oc144ih56kh3ph1", "ic144oc32ih28", "ic192oc64ih14", "g384ic384oc384ih14kh3ph1", "ic384oc96ih14",
        "g576ic576oc576ih14kh3sh2ph1", "ic160oc960ih7", "g960ic960oc960ih7kh3ph1", "ic320oc1280ih7",
    ),
    "EfficientNet": (
        "g96ic96oc96ih56kh5sh2ph2", "g240ic240oc240ih28kh5ph2", "g672ic672oc672ih14kh5ph2",
        "g672ic672oc672ih14kh5sh2ph2", "g1152ic1152oc1152ih7kh5ph2", "ic1152oc48ih1", "ic48oc1152ih1",
    ),
    "ResNet": (
        "ic256oc64ih56", "ic256oc128ih56", "ic128oc512ih28", "ic512oc256ih28", "ic256oc1024ih14", "ic2048oc512ih7",
        "ic64oc128ih56kh3sh2ph1", "ic256oc512ih14kh3sh2ph1", "ic64oc128ih56sh2", "ic2048oc1000ih1",
    ),
    "ConvNeXt, ViT": (
        "ic3oc96ih224kh4sh4", "g384ic384oc384ih14kh7ph3", "g768ic768oc768ih7kh7ph3", "ic192oc384ih28kh2sh2",
        "ic384oc96ih56", "ic768oc3072ih7", "ic3oc768ih224kh16sh16",
    ),
    "ResNeXt, RegNet": (
        "g32ic256oc256ih28kh3ph1", "g32ic512oc512ih14kh3ph1", "g32ic1024oc1024ih7kh3ph1", "g32ic256oc256ih56kh3sh2ph1",
        "g8ic64oc64ih56kh3ph1", "g2ic128oc128ih28kh3ph1", "g4ic224oc224ih28kh3ph1", "g8ic320oc320ih28kh3sh2ph1",
    ),
    "U-Net, YOLO, DeepLab": (
        "ic64oc64ih128kh3ph1", "ic256oc256ih32kh3ph1", "ic3oc32ih320kh6sh2ph2", "ic128oc64ih80", "ic64oc2ih128",
        "ic256oc256ih33kh3dh6ph6", "ic256oc256ih33kh3dh12ph12", "g64ic64oc64ih64kh3dh2ph2",
    ),
    "few channels": (
        "ic3oc64ih224kh3ph1", "ic3oc64ih224kh11sh4ph2", "ic3oc64ih224kh7sh4ph3", "ic4oc32ih84kh8sh4",
        "ic1oc64ih112kh9ph4", "ic16oc16ih32kh3ph1", "ic16oc32ih128kh3ph1", "ic8oc24ih61iw47kh3ph1",
        "ic24oc48ih28kh5ph2", "g16ic256oc256ih28kh3ph1",
    ),
    "odd": (
        "ic64oc64ih57iw43kh3ph1", "ic48oc80ih33iw61kh3ph1", "ic17oc33ih71iw45kh3ph1", "ic1oc16ih128kh3ph1",
        "ic16oc1ih128kh3ph1", "ic3oc16ih256kh3ph1", "ic1oc1ih512kh5ph2", "ic130oc66ih29iw31",
        "ic64oc100ih37iw53kh3sh2ph1", "ic192oc224ih17kh1kw7pw3", "ic192oc224ih17kh7kw1ph3", "g33ic33oc33ih57iw43kh3ph1",
        "ic256oc256ih4kh3ph1", "ic1024oc1024ih2kh3ph1", "mb16ic512oc512ih7kh3ph1", "mb8g96ic96oc96ih28kh7ph3",
        "mb32ic3oc32ih32kh3ph1", "mb64ic16oc16ih8kh3ph1",
    ),
}  # fmt: skip
