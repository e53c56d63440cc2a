"""How a message leaves, one module a protocol."""
