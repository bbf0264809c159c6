"""Files that appear whole, locks on folders, hashes of sources, and secrets."""
