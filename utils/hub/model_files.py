"""The files of a trained model, in a run's checkpoint, in `models/` and on the hub."""

CONFIG = "config.json"
"""Everything needed to rebuild the model."""
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
"""Hashes of the other files; its presence distinguishes a trained model from an upstream."""
METRICS = "metrics.json"
PROVENANCE = "provenance.json"
CARD = "README.md"
"""Model card on the hub: what the model is, what it was trained on, and how well it does."""
MODEL_FILES = (CONFIG, WEIGHTS, MANIFEST, METRICS, PROVENANCE)
"""Files that are published beside the card."""
