"""Pixel data: from encoded frames to stored values, Hounsfield units and colours."""
