"""From trained weights to a package on disk."""
