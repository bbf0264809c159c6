"""Corpus readers: each turns a corpus on disk into the utterance table on which everything else works.

A new corpus needs one new module with `read` and `CLASSES`, registered in `registry.py` under its `FORMAT` name.
"""
