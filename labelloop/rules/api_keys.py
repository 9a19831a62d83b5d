"""A key and what it is used for in, whether it may out. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from labelloop.clock import parse
from labelloop.records.api_keys import ApiKey, Scope

SECRET = re.compile(r"ll_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")  # the whole key, as its owner has it
UNKNOWN = "no valid API key: send the header `Authorization: Bearer ll_…`; `labelloop keys add` makes one"


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """Why a key may not, and the HTTP status that says so."""

    status: int
    reason: str


def new_id() -> str:
    """Twelve hexadecimal digits."""
    return secrets.token_hex(6)


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def whole_key(key_id: str, secret: str) -> str:
    """What the owner sends: the marker lets scanners of source code find one that was published."""
    return f"ll_{key_id}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """(id, secret) of a whole key; None where it is none."""
    match = SECRET.fullmatch(text)
    return (match.group(1), match.group(2)) if match else None


def hash_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def refusal(key: ApiKey | None, secret: str, now: datetime) -> KeyRefusal | None:
    """Why this is no valid key at all, or None. Who does not know the secret learns nothing about the key."""
    if key is None or not _matches(key, secret, now):
        return KeyRefusal(401, UNKNOWN)
    if key.revoked:
        return KeyRefusal(401, f"this API key was revoked on {key.revoked[:10]}; `labelloop keys add` makes another")
    if key.expires and parse(key.expires) <= now:
        return KeyRefusal(401, f"this API key expired on {key.expires[:10]}; `labelloop keys add` makes another")
    return None


def lacks(key: ApiKey, scope: Scope, project: str = "") -> KeyRefusal | None:
    """Why a valid key may not do this, or None. ``project``: its key; empty for what is of no project."""
    if scope not in key.scopes:
        has = ", ".join(key.scopes)
        return KeyRefusal(403, f"this needs the scope {scope}; key {key.id} has {has}. `labelloop keys add` makes one")
    if project and key.project and project != key.project:
        return KeyRefusal(403, f"key {key.id} is for project {key.project} alone")
    return None


def state(key: ApiKey, now: datetime) -> str:
    """In a word: valid, revoked or expired."""
    if key.revoked:
        return "revoked"
    return "expired" if key.expires and parse(key.expires) <= now else "valid"


def _matches(key: ApiKey, secret: str, now: datetime) -> bool:
    """Both hashes are compared always, in constant time."""
    sent = hash_of(secret)
    current = hmac.compare_digest(sent, key.sha256)
    former = hmac.compare_digest(sent, key.former)
    return current or (former and bool(key.former_until) and now < parse(key.former_until))
