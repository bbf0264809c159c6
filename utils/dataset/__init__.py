"""From utterances to batches: draws, normalisation, sampling, collation."""
