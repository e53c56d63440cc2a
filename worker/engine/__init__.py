"""The thread that owns the device, and the packages that it serves."""
