"""The keys of the TOML files, and how the files are read."""
