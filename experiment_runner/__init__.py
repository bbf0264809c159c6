"""Training and evaluation, where data, model and configuration meet, and the files that they write."""
