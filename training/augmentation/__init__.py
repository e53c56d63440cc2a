"""Every random change to a training picture."""
