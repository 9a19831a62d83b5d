"""A worker's work, done in the command's own process: what of the command line needs torch, imported only then."""
