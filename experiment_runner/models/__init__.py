"""A model without its run: its configuration, loading it, and what is known of its origin."""
