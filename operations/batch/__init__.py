"""Many images at once: what is asked for, who computes it, where it is written."""
