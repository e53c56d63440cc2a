"""``firstread up``: everything on one machine."""
