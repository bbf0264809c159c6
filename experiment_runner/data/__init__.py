"""Which rows and classes an experiment trains and evaluates on."""
