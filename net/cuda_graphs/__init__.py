"""GPU work launched as CUDA graphs."""
