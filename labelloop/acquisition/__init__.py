"""Probabilities and features in, the order in which the pool should be labelled out (numpy only).

Score, then select: `uncertainty` gives each image a utility, `select` makes an order of it, `order` mixes in
the random quota. `strategies` is the table; a new one is one function, one row, one test.
"""

from labelloop.acquisition.order import Plan, Pool, Quota, plan_queue
from labelloop.acquisition.strategies import DEFAULT, STRATEGIES, Strategy

__all__ = ["DEFAULT", "STRATEGIES", "Plan", "Pool", "Quota", "Strategy", "plan_queue"]
