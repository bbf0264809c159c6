"""Work that a GPU is given as CUDA graphs."""
