"""Corpus readers: each turns a corpus on disk into the utterance table that everything else works on.

A new corpus is one new module with `read` and `CLASSES`, in `registry.py` under its `FORMAT` name.
"""
