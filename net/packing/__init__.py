"""How a batch lies in memory."""
