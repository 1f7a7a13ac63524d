"""Index arithmetic that kernels share. All of it is in 64 bits, so that no array is too large."""

from npconv.kernels.cuda import jit

ZEROS, REFLECT, REPLICATE, CIRCULAR = range(4)


@jit.device_function
def unravel(i, size):  # type: ignore[no-untyped-def]
    """Return where element ``i`` of an array (outer, *size) stands, as (outer, d, h, w); ``size`` has three entries."""
    depth, height, width = size
    w = i % width
    i //= width
    h = i % height
    i //= height
    return i // depth, i % depth, h, w


@jit.device_function
def padded_from(i, n, mode):  # type: ignore[no-untyped-def]
    """Return which of an axis' n elements padding repeats at place ``i``, or -1 where it puts a zero."""
    if 0 <= i < n:
        return i
    if mode == REFLECT:
        return -i if i < 0 else 2 * (n - 1) - i
    if mode == REPLICATE:
        return 0 if i < 0 else n - 1
    if mode == CIRCULAR:
        return i + n if i < 0 else i - n
    return -1
