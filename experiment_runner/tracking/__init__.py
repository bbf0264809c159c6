"""Copies of runs elsewhere."""
