"""The model: upstream, pooling, heads and losses. Nothing here knows of files, corpora or experiments."""
