"""Where data, model and configuration meet: training, evaluation, and what they keep."""
