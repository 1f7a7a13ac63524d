"""npconv: convolutions for NumPy arrays, without a framework.

Readable NumPy versions of the textbook's algorithms, Numba kernels for the CPU and for CUDA, one interface::

    import npconv

    y = npconv.conv2d(x, weight, bias, stride=2, padding="same_upper")

Importing npconv imports NumPy and nothing else; Numba is imported by the first call that compiles.
"""

__version__ = "0.1.0"

from npconv import grad
from npconv.api import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from npconv.config import show_config
from npconv.errors import CudaUnavailableError
from npconv.folding import fold, unfold
from npconv.inspection import Explanation, algorithms, explain
from npconv.integer import conv1d_integer, conv2d_integer, conv3d_integer
from npconv.layers import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from npconv.precision import get_default_precision, set_default_precision
from npconv.threads import get_num_threads, set_num_threads, threads
from npconv.tuning import forget, tune
from npconv.warm import warmup

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CudaUnavailableError",
    "Explanation",
    "__version__",
    "algorithms",
    "conv1d",
    "conv1d_integer",
    "conv2d",
    "conv2d_integer",
    "conv3d",
    "conv3d_integer",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "explain",
    "fold",
    "forget",
    "get_default_precision",
    "get_num_threads",
    "grad",
    "set_default_precision",
    "set_num_threads",
    "show_config",
    "threads",
    "tune",
    "unfold",
    "warmup",
]
