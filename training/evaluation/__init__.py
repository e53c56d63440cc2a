"""Measuring a package or a run's out-of-fold predictions: figures with intervals, a page with plots, JSON beside it."""
