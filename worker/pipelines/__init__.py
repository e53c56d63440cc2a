"""The pipelines: a folder each, and beside them what they share."""
