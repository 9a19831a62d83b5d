"""The Label Studio ML backend: task in, prediction out."""
