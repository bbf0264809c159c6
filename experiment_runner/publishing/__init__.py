"""What leaves the machine: runs on the hub, and their model cards."""
