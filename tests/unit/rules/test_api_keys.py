"""What a key may do, and when it counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from labelloop.records.api_keys import ApiKey, Scope
from labelloop.rules.api_keys import UNKNOWN, hash_of, lacks, new_secret, parts_of, refusal, state, whole_key

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BEFORE, AFTER = "2026-06-01T11:59:59.000000Z", "2026-06-01T12:00:01.000000Z"
KEY = ApiKey("0123456789ab", "camera", hash_of("right"), (Scope.PREDICT,), "anna", BEFORE, expires=AFTER)


@pytest.mark.parametrize(("changes", "secret", "says"), [
    ({}, "right", None),
    ({"expires": ""}, "right", None),
    ({}, "wrong", UNKNOWN), ({}, "", UNKNOWN),
    ({"expires": BEFORE}, "right", "expired on 2026-06-01"),
    ({"expires": NOW.isoformat()}, "right", "expired"),  # at that very moment
    ({"revoked": BEFORE}, "right", "revoked on 2026-06-01"),
    ({"revoked": BEFORE}, "wrong", UNKNOWN),  # who lacks the secret learns nothing
    ({"former": hash_of("old"), "former_until": AFTER}, "old", None),
    ({"former": hash_of("old"), "former_until": BEFORE}, "old", UNKNOWN),
    ({"former": hash_of("old")}, "old", UNKNOWN),
    ({"former_until": AFTER}, "", UNKNOWN),  # nothing former is no empty secret
    ({"former": hash_of("old"), "former_until": AFTER, "revoked": BEFORE}, "old", "revoked"),
])  # fmt: skip
def test_when_a_key_counts(changes: dict[str, str], secret: str, says: str | None) -> None:
    why = refusal(replace(KEY, **changes), secret, NOW)  # type: ignore[arg-type]
    assert (why is None) if says is None else (why is not None and why.status == 401 and says in why.reason)


def test_an_unknown_key_is_refused_in_the_same_words_as_a_wrong_secret() -> None:
    assert refusal(None, "right", NOW) == refusal(KEY, "wrong", NOW)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("has", Scope)
def test_no_scope_implies_another(scope: Scope, has: Scope) -> None:
    why = lacks(replace(KEY, scopes=(has,)), scope)
    assert (why is None) is (scope is has)
    assert why is None or (why.status == 403 and str(scope) in why.reason)


@pytest.mark.parametrize(("of", "asked", "allowed"), [
    ("", "", True), ("", "main-1-0", True), ("main-1-0", "main-1-0", True), ("main-1-0", "main-2-0", False),
    ("main-1-0", "", True), ("main-1-0", "main-1-00", False),
])  # fmt: skip
def test_a_key_of_a_project_reaches_no_other(of: str, asked: str, allowed: bool) -> None:
    why = lacks(replace(KEY, project=of), Scope.PREDICT, asked)
    assert (why is None) is allowed


def test_a_whole_key_has_256_random_bits_and_is_taken_apart_again() -> None:
    secret = new_secret()
    assert parts_of(whole_key(KEY.id, secret)) == (KEY.id, secret)
    assert len({new_secret() for _ in range(100)}) == 100
    for text in ("", "ll_", "x" + whole_key(KEY.id, secret), whole_key(KEY.id, secret) + "x", whole_key("x", secret),
                 whole_key(KEY.id, secret) + "\n", whole_key(KEY.id, "é" * 43)):  # fmt: skip
        assert parts_of(text) is None


def test_its_state_in_a_word() -> None:
    assert [state(k, NOW) for k in (KEY, replace(KEY, expires=BEFORE), replace(KEY, revoked=BEFORE))] == [
        "valid", "expired", "revoked"]  # fmt: skip
