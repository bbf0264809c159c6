"""The machine and the terminal: console, device, precision, signals, fonts and versions."""
