"""Triton kernels, and the check whether they run: the only files that import triton."""
