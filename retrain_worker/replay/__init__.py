"""A labelled history in; what each order of labelling would have cost, out: many seeds, kept features, in minutes."""
