"""The kernels: one folder per backend, the same file name for the same algorithm, the same entry signature.

Each textbook algorithm is a function ``conv(x, weight, bias, out, stride, dilation, groups)`` over

- ``x`` (N, C, D, H, W), already padded, C-contiguous, in the dtype that sums are kept in;
- ``weight`` (K, C/groups, kd, kh, kw), C-contiguous, of the same dtype; ``bias`` (K,) or None;
- ``out`` (N, K, OD, OH, OW), C-contiguous, of the same dtype, to be filled;
- ``stride`` and ``dilation`` three integers each, ``groups`` one.

The faster algorithms of the Numba backend are engines with another entry: see `npconv.kernels.packed`.

One- and two-dimensional convolutions arrive with axes of length one in front. Nothing here knows of choosing, of costs
or of what users write: from outside this folder come `npconv.problem`, and what all share, such as threads, warnings
and `npconv.loading`.
"""
