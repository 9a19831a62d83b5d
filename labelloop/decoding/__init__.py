"""Image bytes to pixels: what they declare, what that may cost, and decoding itself, here or in a helper process."""
