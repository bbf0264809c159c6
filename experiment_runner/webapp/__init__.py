"""The demo page in the browser: predictions for a recording, on this machine only."""
