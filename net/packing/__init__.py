"""The memory layout of batches."""
