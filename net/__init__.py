"""The model: upstream, pooling, heads and losses. Nothing here knows about files, corpora or experiments."""
