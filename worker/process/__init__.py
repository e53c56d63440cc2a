"""The worker process, its supervisor, its signs of life, and the sweeper."""
