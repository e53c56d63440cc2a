"""What a door hands in, and how it becomes a durable file and a row."""
