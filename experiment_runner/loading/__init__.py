"""Rows to batches: the processes that decode them, and the features that are cached."""
