"""What ``firstread prepare`` writes and reads."""
