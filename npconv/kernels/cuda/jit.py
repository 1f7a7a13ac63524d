"""How npconv compiles for CUDA and launches, in one place, with what a GPU and Numba's simulator do not share.

``from numba import cuda`` is NVIDIA's numba-cuda where that is installed, else the numba.cuda that Numba ships. Both
have a simulator (NUMBA_ENABLE_CUDASIM=1), which runs each thread of a kernel as a Python thread over NumPy arrays.

What is special to one: Numba's own (0.68) can neither compile ``min`` in a kernel nor reshape an empty device array.

Kernels compile when they are first launched, once per combination of dtypes and memory orders: in 0.05 to 0.5 s each.

Rejected: ``cache=True``, which would save these, but Numba does not see changes in the files whose functions a cached
kernel calls (numba#1833). ``fastmath=True``, one switch on CUDA, which lets the compiler assume that there is no NaN
and no infinity; products and sums become fused multiply-adds without it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
from numpy.lib.stride_tricks import as_strided

SIMULATED = bool(numba.config.ENABLE_CUDASIM)
THREADS = 256
"""Threads of a block of an element-wise kernel."""
MAX_BLOCKS = 2**31 - 1
"""Blocks that CUDA takes in a one-dimensional grid; where they are too few, each has several turns."""
MIN_BLOCKS = 1 if SIMULATED else 128
"""With fewer, Numba warns that the GPU is idle, which a small problem cannot help. Blocks without work end at once.
(Rejected: to filter the warning. Filters belong to the process, and npconv may be called from many threads.)"""


def kernel(function: Callable[..., None]) -> Any:
    """Make a kernel of a function; it compiles when `launch` or `launch_blocks` meets new argument types."""
    return cuda.jit(function)


def device_function(function: Callable[..., Any]) -> Any:
    """Make a function for kernels to call. Its module must not name ``cuda``, which the simulator would swap."""
    return cuda.jit(function, device=True)


def launch(kernel: Any, elements: int, *args: Any) -> None:
    """Run a kernel whose threads stride over elements by the size of the grid."""
    threads = max(1, min(THREADS, elements))
    launch_blocks(kernel, -(-elements // threads), threads, *args)


def launch_blocks(kernel: Any, blocks: int, threads: int, *args: Any) -> None:
    """Run a kernel, which strides by the size of the grid, over so many blocks of work; over none, do nothing."""
    if blocks:
        kernel[max(MIN_BLOCKS, min(blocks, MAX_BLOCKS)), threads](*args)


@contextmanager
def _memory_for(nbytes: int) -> Iterator[None]:
    """Raise CUDA's want of memory as Python's MemoryError."""
    message = f"an array of {nbytes} bytes does not fit into the CUDA device's memory"
    if nbytes > sys.maxsize:  # Numba would hand the number on to C, which wraps it
        raise MemoryError(message)
    try:
        yield
    except CudaAPIError as error:
        if "OUT_OF_MEMORY" in str(error):
            raise MemoryError(message) from error
        raise


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return a new C-contiguous device array, not filled."""
    with _memory_for(math.prod(shape) * np.dtype(dtype).itemsize):
        return cuda.device_array(shape, dtype)


def transfer_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which an array goes over: its own in native order, but float32 for bfloat16."""
    return np.dtype("float32") if dtype.name == "bfloat16" else dtype.newbyteorder("=")


def to_device(array: Any) -> Any:
    """Return a NumPy array's C-contiguous copy on the device, or Numba's view of what is there already."""
    if isinstance(array, np.ndarray):
        with _memory_for(array.nbytes):
            return cuda.to_device(np.ascontiguousarray(array, transfer_dtype(array.dtype)))
    return array if SIMULATED else cuda.as_cuda_array(array)


def reshape(array: Any, *shape: int) -> Any:
    """Return a C-contiguous device array, which may be empty, with other axes."""
    return array.reshape(*shape) if array.size else empty(shape, array.dtype)


def view(array: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """View one of Numba's device arrays as ``change``, which inserts and permutes axes, views a NumPy array.

    Numba's device arrays cannot do that themselves. So a NumPy array of the same shape and strides goes through
    ``change`` (its elements are never touched), and the device array is viewed with the shape and strides it got.
    """
    if SIMULATED:
        return type(array)(change(array._ary))
    shadow = change(as_strided(np.empty((), array.dtype), array.shape, array.strides))
    if not array.size:
        return empty(shadow.shape, array.dtype)
    # NumPy's new axes have stride 0, for which Numba compiles slower code: where the order is C, let it find its own.
    strides = None if shadow.flags.c_contiguous else shadow.strides
    description = {**array.__cuda_array_interface__, "shape": shadow.shape, "strides": strides}
    return cuda.from_cuda_array_interface(description, owner=array)
