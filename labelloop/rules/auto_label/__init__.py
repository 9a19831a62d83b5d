"""Audit labels in, the labels that a model may give alone at a promised precision out (numpy, scipy).

`audit` says which answers of people are a random sample of the images, `rule` decides by them, `kept` writes what came
of it: never an annotation. docs/auto-label.md says what is promised and what is not.
"""
