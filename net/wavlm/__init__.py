"""WavLM on utterances laid end to end, without padding."""
