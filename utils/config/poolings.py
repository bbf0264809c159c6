"""The poolings that an experiment can name: a new one is a class in `net/pooling.py` and a row here."""

from __future__ import annotations

from utils.registry import Registered, SubclassOf

ATTENTIVE_STATISTICS = "attentive_statistics"
POOLINGS = {ATTENTIVE_STATISTICS: "net.pooling:AttentiveStatisticsPooling"}
POOLING = Registered(tuple(POOLINGS), SubclassOf({"net.pooling:Pooling": ("dim",)}))
