"""A warning in, what to say and do about it out: figures and advice, no accusation. Pure."""

from __future__ import annotations

from labelloop.rules.value.report import Unread

MANY = 1_000_000


def headline(warning: Unread, name: str) -> str:
    """Who, and the figures, in one line."""
    shown, blind = warning.overrides, warning.blind
    return (
        f"{name} took {shown.of - shown.hits} of {shown.of} pre-labels, but without one disagreed with the model on "
        f"{blind.hits} of {blind.of} images"
    )


def reasons(warning: Unread) -> list[str]:
    """How sure that is, and what supports it."""
    odds = "a million" if warning.odds >= MANY else f"{warning.odds:,.0f}"
    sentences = [
        f"since {warning.since[:16].replace('T', ' ')} UTC, clear after {warning.noticed} answers: less likely than "
        f"1 in {odds} for somebody who looks at each image"
    ]
    fast, slow = warning.seconds_accepted, warning.seconds_blind
    if fast is not None and slow is not None and fast < slow / 2:
        sentences.append(f"a pre-label is accepted in {fast:.1f} s, an image without one takes {slow:.1f} s (medians)")
    return sentences


def advice(warning: Unread) -> str:
    """What to do."""
    return (
        "the reason may be harmless, so ask; have the "
        f"{warning.accepted} accepted labels looked at again (`labelloop value --json` lists the tasks, least sure "
        f"first; {warning.wrong:.0f} are wrong by the model's own probabilities), and raise queue.blind for a while"
    )
