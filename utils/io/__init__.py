"""Atomic file writes, folder locks, source hashes, and secrets."""
