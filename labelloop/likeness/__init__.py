"""Which pictures show the same, and which stand together in one split."""
