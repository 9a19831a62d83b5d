"""The labelled data: exports, duplicates, automatic labels."""
