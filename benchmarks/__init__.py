"""What is fast, and how fast: each module is one command that prints a table and writes JSON."""
