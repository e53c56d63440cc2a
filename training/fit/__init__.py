"""One training: data feeds, loop, losses, first weights, folds."""
