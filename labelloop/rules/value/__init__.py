"""What pre-labels are worth: time saved, what they do to people's answers, and who accepts them unread. Pure.

`looks` makes one look of each answer, `figures` counts, `unread` tests, `report` puts it together; `words` says it.
"""

from labelloop.rules.value.looks import Look, Showing, in_order, looks_of
from labelloop.rules.value.report import Unread, Value, unread_from, value_of, warnings_of

__all__ = ["Look", "Showing", "Unread", "Value", "in_order", "looks_of", "unread_from", "value_of", "warnings_of"]
