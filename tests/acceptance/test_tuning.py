"""A search on the real stack: trials are jobs of the train worker, judged, shown, and none is lost with the queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import Loop, labelloop

SEARCH = """
sampler: random
pruner: none
trials: 3
base:
  backbone: {name: small_cnn, pretrained: false, image_size: 16, options: {filters: [8], dense: 16, dropout: 0.0}}
  retrain: {epochs: 2, batch_size: 16, warm_head: false, backbone_rate: 1.0, validation: 0.3}
space:
  retrain.learning_rate: {real: [0.001, 0.05], log: true}
"""


@pytest.mark.long(seconds=40)
def test_a_search_runs_to_its_end_and_its_picture_is_drawn(loop: Loop, tmp_path: Path) -> None:
    asked, picture = tmp_path / "search.yaml", tmp_path / "search.png"
    asked.write_text(SEARCH)
    printed = labelloop("tune", "run", asked, "--state-dir", loop.home)
    assert "3 of 3 trials ended" in printed
    shown = json.loads(labelloop("tune", "show", "--json", "--plot", picture, "--state-dir", loop.home))
    states = [t["state"] for t in shown["trials"]]
    assert states == ["complete"] * 3
    assert len({t["params"]["retrain.learning_rate"] for t in shown["trials"]}) == 3
    assert all(0 <= t["accuracy"] <= 1 and t["figures"]["ms"] > 0 for t in shown["trials"])
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.long(seconds=20)
def test_a_range_test_suggests_a_rate(loop: Loop) -> None:
    found = json.loads(labelloop("lr-find", "--json", "--state-dir", loop.home))
    assert 1e-6 < found["suggestion"] < 1
