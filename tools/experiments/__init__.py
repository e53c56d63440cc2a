"""Experiments whose answer is known; their tables stand in the documents."""
