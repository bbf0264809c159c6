"""From rows to batches: the processes that decode them, and the cached features."""
