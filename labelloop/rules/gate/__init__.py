"""Evidence in, a verdict with its reasons out: promote, hold or reject. Pure.

`paired` compares with the champion, `rules` holds everything else that can stop a model; a new rule is one function,
one row, one test. `verdict` takes the worst of what they say.
"""

from labelloop.rules.gate.verdict import judge

__all__ = ["judge"]
