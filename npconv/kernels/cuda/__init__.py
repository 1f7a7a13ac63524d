"""The textbook algorithms for CUDA, in Numba: `device` brings arrays over and back, `jit` compiles and launches."""
