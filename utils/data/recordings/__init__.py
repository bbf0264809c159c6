"""Audio files: where they lie, what is known of them, and what is wrong with them."""
