"""The inbox: files that people and programs drop into a folder."""
