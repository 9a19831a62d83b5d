"""What a project keeps in its bucket: each key has one owner here."""
