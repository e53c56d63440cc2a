"""Writes the tables of the documents that the code knows best."""
