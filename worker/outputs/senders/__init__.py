"""How a message leaves, one module a protocol.

A sender returns a short status text, or raises ``NotDelivered``. Neither holds patient data.
"""
