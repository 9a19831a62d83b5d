"""A program beside the people: a key, a prediction by the version that they see, and the end of the key."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.acceptance.conftest import Loop, labelloop, until


def test_a_program_classifies_with_the_version_that_people_see(loop: Loop) -> None:
    made = json.loads(
        labelloop("keys", "add", "camera", "--scopes", "read,predict", "--json", "--state-dir", loop.home)
    )
    address = loop.deployment.settings.api_url
    assert address
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {made['key']}"}, timeout=60) as client:
        until(lambda: client.get("/v1/projects").status_code == 200, 10, "the key's beginning")
        (project,) = [p for p in client.get("/v1/projects").json()["projects"] if p["key"] == loop.project.key]
        assert project["classes"] == list(loop.schema.classes)
        status = client.get(f"/v1/projects/{loop.project.key}/status").json()["project"]
        assert status["version"] == project["champion"]
        uri = loop.project.image_uri
        image = loop.deployment.s3.list_objects_v2(Bucket="images", Prefix=uri.split("/", 3)[3], MaxKeys=1)["Contents"][
            0
        ]
        body: dict[str, Any] = {"images": [{"uri": f"s3://images/{image['Key']}"}], "neighbours": 3, "heat_map": True}
        answer = client.post("/v1/classify", json={**body, "project": loop.project.key})
        assert answer.status_code == 200, answer.text
        (seen,) = answer.json()["images"]
        assert seen["top"][0]["label"] in loop.schema.classes
        assert len(seen["heat_map"]) == 7
        assert {near["label"] for near in seen["neighbours"]} <= set(loop.schema.classes)
        assert client.post(f"/v1/projects/{loop.project.key}/retrain").status_code == 403
        assert client.get("/docs").status_code == 200
        labelloop("keys", "revoke", made["id"], "--state-dir", loop.home)
        until(lambda: client.get("/v1/projects").status_code == 401, 5, "the key's end")
