"""Predictions of a trained model for any recordings: recordings in, tables out."""
