"""What speaks HTTP: routes, what surrounds them, and how errors look on the wire."""
