"""How an array (N, C, D, H, W) lies in memory, as kernels are told: its *layout*, eight integers.

Five are the steps from one image, channel, plane, row and pixel to the next, in elements, 0 where the array is
broadcast; three are the sizes of its images. With it comes the memory, flat, from the first element on
(`npconv.kernels.numba.slab.flat`).
"""

IMAGE, CHANNEL, PLANE, ROW, PIXEL, DEPTH, HEIGHT, WIDTH = range(8)
"""The places of these."""
