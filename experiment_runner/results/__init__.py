"""From a model's outputs to columns of predictions, and from columns to metrics."""
