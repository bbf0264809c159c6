"""The encoders that an experiment can name: that of its upstream's kind (`net/encoders.py`), or the user's own."""

from __future__ import annotations

from utils.registry import Registered, SubclassOf

AUTO = "auto"
ENCODER = Registered((AUTO,), SubclassOf({"net.encoder:Encoder": ("model", "settings")}))
