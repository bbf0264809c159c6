"""One process or several, with the same operations."""
