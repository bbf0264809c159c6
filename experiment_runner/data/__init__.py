"""Selection of the rows and classes that an experiment trains and evaluates on."""
