"""Recordings in, tables out: what a trained model says of any recordings."""
