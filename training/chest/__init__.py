"""Chest X-ray: readers of film collections, packages, figures, and experiments."""
