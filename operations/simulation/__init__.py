"""The loop under annotators who know the truth."""
