"""Uploads of runs to the hub, and their model cards."""
