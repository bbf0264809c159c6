"""Triton kernels, and the check whether they run."""
