"""Fetching and uploading of models: the hub, git, and `models/`."""
