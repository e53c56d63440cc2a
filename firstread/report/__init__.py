"""One study as an HTML page."""
