"""Backbones and heads: built, loaded and checked the same in training and in serving."""
