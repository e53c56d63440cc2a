"""What runs the network of a package."""
