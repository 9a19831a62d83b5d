"""Whatever the OpenAPI document allows, and what it does not, is answered as the document says: samples.

More of the second: ``python -m bench.faults.hostile_requests``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bench.faults.hostile_requests import fault_of, hostile
from labelloop.web.known_keys import KnownKeys
from tests.unit.api.test_answers import with_versions
from tests.unit.worlds.api import api_world
from tests.unit.worlds.backend import World
from tests.unit.worlds.front import Front, front

EXAMPLES = 6  # of each operation and kind


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Front, str]]:
    """The front door with a backend behind it, and a key that both know."""
    world = World()
    world.deploy(world.add(world.backbone(), 1))
    with api_world(world) as backend:
        door = front(with_versions(), backend.client.application)
        key = door.key(per_minute=10**6)
        copy(door, backend.known, backend.world)
        yield door, key


def copy(door: Front, known: KnownKeys, world: World) -> None:
    """One bucket for both, as in a deployment."""
    for info in door.ops.root.list("keys/"):
        world.store.put(info.key, door.ops.root.get(info.key))
    known.read()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not allowed"])
def test_what_the_document_says_holds(both: tuple[Front, str], mode: GenerationMode) -> None:
    door, key = both
    schema = schemathesis.openapi.from_wsgi("/openapi.json", door.client.application)
    seen = Counter[int]()
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        def holds(case: Case) -> None:
            # any text is base64 or an address to the document; whether it is an image, only the backend can tell
            left_out = [positive_data_acceptance] if case.path == "/v1/classify" else []
            answer = case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, excluded_checks=left_out)
            assert answer.status_code < 500 or answer.status_code == 503
            seen[answer.status_code] += 1

        holds()
    assert seen[200]
    assert seen[422]


def test_no_hostile_request_is_answered_otherwise_than_in_words(both: tuple[Front, str]) -> None:
    door, key = both
    seen = Counter[int]()
    for request in hostile(300, 7, "main-1-0"):
        headers = {"Authorization": f"Bearer {key}", **request.headers}
        answer: Any = door.client.open(request.path, method=request.method, data=request.body, headers=headers)
        why = fault_of(answer.status_code, answer.headers, answer.data, head=request.method == "HEAD")
        assert not why, (request.number, request.method, request.path, why, answer.text)
        seen[answer.status_code] += 1
    assert {200, 404, 422} <= set(seen)


@pytest.mark.parametrize(("status", "headers", "body", "why"), [
    (200, {}, b"", ""), (500, {}, b"", "status 500"), (502, {}, b"", "status 502"),
    (503, {}, b"", "without Retry-After"), (404, {"Content-Type": "text/html"}, b"", "no problem"),
    (404, {"Content-Type": "application/problem+json"}, b'{"status": 404}', ""),
    (404, {"Content-Type": "application/problem+json"}, b'{"status": 400}', "another status"),
])  # fmt: skip
def test_the_judge_can_say_no(status: int, headers: dict[str, str], body: bytes, why: str) -> None:
    assert why in fault_of(status, headers, body)
    assert bool(fault_of(status, headers, body)) is bool(why)
