"""Recordings packed into shards."""
