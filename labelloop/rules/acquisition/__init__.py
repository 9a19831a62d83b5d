"""Probabilities and features in, the order in which the pool should be labelled out (numpy, scipy).

Score, then select: `uncertainty` gives each image a utility, `select` makes a front of it, `order` mixes in the random
quota. `strategies` is the table; a new one is one function, one row, one test. `policy` chooses among them.
"""

from labelloop.rules.acquisition.order import LabelledRows, QueuePlan, UnlabelledPool, lot, plan_queue
from labelloop.rules.acquisition.policy import Chosen, Doubts, Situation, choose, doubts_of
from labelloop.rules.acquisition.query import Query
from labelloop.rules.acquisition.quota import Quota
from labelloop.rules.acquisition.strategies import STRATEGIES, Strategy, strategy

__all__ = [
    "STRATEGIES",
    "Chosen",
    "Doubts",
    "LabelledRows",
    "Query",
    "QueuePlan",
    "Quota",
    "Situation",
    "Strategy",
    "UnlabelledPool",
    "choose",
    "doubts_of",
    "lot",
    "plan_queue",
    "strategy",
]  # fmt: skip
