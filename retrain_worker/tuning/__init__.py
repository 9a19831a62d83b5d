"""Trials of a search: proposed by Optuna, judged on the validation part alone, run by any number of workers."""
