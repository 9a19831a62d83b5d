"""The REST API: the one address for programs. What it answers, `operations` and the backend know."""
