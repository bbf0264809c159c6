"""Where models come from and go to: the hub, git, and `models/`."""
