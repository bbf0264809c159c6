"""Audio files: finding them, examining them, and explaining their problems."""
