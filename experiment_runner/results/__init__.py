"""A model's outputs to columns, and columns to numbers."""
