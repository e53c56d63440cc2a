"""Synthetic studies for tests: drawn by formulas, named ``PHANTOM^...``, and never used to tune anything."""
