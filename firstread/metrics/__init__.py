"""The metrics endpoint, and the figures that it reads from the database."""
