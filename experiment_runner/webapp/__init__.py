"""The page in the browser: a recording in, what a model hears in it out, for this machine alone."""
