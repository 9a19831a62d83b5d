"""Labelled data and model cards, as people take them away."""
