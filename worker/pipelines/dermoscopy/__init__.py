"""Dermoscopy: the outline of a lesion, and what it is."""
