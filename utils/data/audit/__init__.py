"""All that can be wrong with a corpus, found before training."""
