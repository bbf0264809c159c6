"""One process or many, with the same operations."""
