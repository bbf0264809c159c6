"""A model without its run: its configuration, how it is loaded, and its origin."""
