"""Basic auth on everything but what Label Studio cannot authenticate."""

from __future__ import annotations

import hmac

from flask import Request
from werkzeug.datastructures import Authorization

OPEN = frozenset({"health", "webhook"})  # endpoints; Label Studio's own webhook sends no credentials


def permitted(request: Request, user: str, password: str | None) -> bool:
    """True where the request may go on: the endpoint is open, no password is set, or the credentials are right."""
    return request.endpoint in OPEN or authorised(request.authorization, user, password)


def authorised(given: Authorization | None, user: str, password: str | None) -> bool:
    """Compare in constant time; both parts always, so that neither can be guessed alone."""
    if password is None:
        return True
    if given is None or given.type != "basic":
        return False
    right_user = hmac.compare_digest((given.username or "").encode(), user.encode())
    right_password = hmac.compare_digest((given.password or "").encode(), password.encode())
    return right_user and right_password
