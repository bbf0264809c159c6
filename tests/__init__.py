"""Tests. Where several processes run them, each computes with one thread, so that none waits for another's."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the programs they start inherit it
