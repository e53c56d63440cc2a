"""Judged studies without identity, for training."""
