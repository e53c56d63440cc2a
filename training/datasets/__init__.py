"""What every reader of a data set gives, the readers of open formats, and decoded arrays."""
