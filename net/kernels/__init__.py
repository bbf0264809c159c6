"""Triton kernels, and whether they run: the only files that import triton."""
