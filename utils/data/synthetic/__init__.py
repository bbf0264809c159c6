"""The demo's corpus and its synthetic voices."""
