"""STOW-RS (PS3.18 section 10.5): objects in the parts of a POST, for senders that speak HTTP."""
