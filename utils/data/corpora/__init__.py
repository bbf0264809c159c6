"""Basis of the corpus readers: releases, tables and their columns."""
