"""Synthetic studies that prove the path: drawn by formulas, named ``PHANTOM^...``, and never used to tune anything."""
