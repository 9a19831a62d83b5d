"""What a project keeps of its past, what may go, and what cannot be read."""
