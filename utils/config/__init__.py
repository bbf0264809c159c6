"""What may stand in the TOML files, and reading them."""
