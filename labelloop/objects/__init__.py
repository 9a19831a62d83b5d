"""Object storage: one protocol, formats, copies, damage."""
