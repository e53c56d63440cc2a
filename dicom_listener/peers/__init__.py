"""What the doors of the network know of peers alike: limits, proxies, TLS, and who was turned away and why."""
