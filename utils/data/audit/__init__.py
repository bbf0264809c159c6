"""Finding everything that is wrong with a corpus before training."""
