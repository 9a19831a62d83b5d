"""A project's YAML as frozen values: few dials, the rest derived."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from yaml import SequenceNode

from labelloop.config.key_groups import group_by, in_test_set
from labelloop.config.networks import AUTO
from labelloop.config.shares import SplitShares
from labelloop.config.steps import Step
from labelloop.config.task_fields import Fields, checked_group_by, checked_test_set, named_fields
from labelloop.config.training import Number, Positive, Retrain, Share, Whole, in_words, no_switch
from labelloop.config.yaml_file import Node, read_yaml, values_at
from labelloop.errors import SettingsError
from labelloop.records.given import NOTHING_SAID, Given, Said
from labelloop.records.images import Split
from labelloop.records.json import canonical, digest

TOLD = 20  # of what is wrong with one file

log = structlog.get_logger()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _finite(value: Any) -> Any:
    """Settings of any shape, without numbers that no JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(part)
    return value


class BackboneSpec(_Frozen):
    """Which network turns an image into features."""

    name: str = (
        AUTO  # auto: chosen when the project is made (labelloop.config.networks); pixels, small_cnn, or timm's name
    )
    pretrained: str | bool = "auto"  # auto | true | false | a weight file's path or name
    image_size: Annotated[Positive, Field(le=4096)] | None = None  # pixels, square; None: what the network was made for
    options: Annotated[dict[str, Any], AfterValidator(_finite)] = Field(default_factory=dict)  # of timm.create_model
    steps: tuple[Step, ...] = ()  # what is done to an image after it was cut to size, in this order
    scale: Literal["network", "unit"] = "network"  # pixels as the network's weights want them, or in [0, 1]


class SplitPolicy(_Frozen):
    """Shares of the images that never train."""

    test: Share = 0.10
    audit: Share = 0.05
    near_duplicates: bool = True  # related pictures stand in the same split, and one picture counts once
    group_by: Annotated[str, AfterValidator(checked_group_by)] = ""  # patient, video, lot: a pattern, or field:NAME
    test_set: Annotated[str, AfterValidator(checked_test_set)] = ""  # prefix or field:NAME=VALUE: test, and no others

    def shares(self) -> SplitShares:
        """The same, for the rules."""
        return SplitShares(0.0 if self.test_set else self.test, self.audit)

    @property
    def fields(self) -> Fields:
        """Of a task, which say it."""
        return named_fields(self.group_by, self.test_set)

    def given(self, uri: str, folder: str, fields_say: Said = NOTHING_SAID) -> Given:
        """What people say of an image. ``folder``: the project's images; ``fields_say``: by the fields of its tasks."""
        fields = self.fields
        theirs = fields_say.test if fields.test[0] else in_test_set(self.test_set, uri, folder)
        group = fields_say.group or None if fields.group else group_by(self.group_by, uri)
        split = Split.TEST if theirs else None
        return Given(digest(f"test set:{group}".encode()) if group and split else group, split)

    @property
    def non_defaults(self) -> dict[str, Any]:
        """What differs from the default, of what was added later: an upgrade must start no run."""
        return {name: value for name in ("group_by", "test_set") if (value := getattr(self, name))}


MemberName = Literal["svm", "lightgbm", "random_forest", "xgboost_shallow", "xgboost_medium", "xgboost_deep"]


class HeadSpec(_Frozen):
    """What turns features into classes."""

    kind: Literal["linear", "ensemble"] = "linear"  # seconds; or a soft vote of six, often a point better, minutes
    pool: bool = True  # a linear one learns from unlabelled images, too, where that helps out of fold
    budget_s: Annotated[Number, Field(gt=0, le=86_400)] = 60.0  # an ensemble's members are fitted, cheap ones first
    members: tuple[MemberName, ...] | None = None  # exactly these, however long they take
    threads: Annotated[Positive, Field(le=256)] = 2  # fits of an ensemble beside each other


Weight = Annotated[Number, Field(gt=0, le=100)]


class LabelWeights(_Frozen):
    """How much a label counts where models learn; where they are judged every label counts alike."""

    annotators: dict[Annotated[int, BeforeValidator(no_switch)], Weight] = Field(
        default_factory=dict
    )  # Label Studio's user id -> weight
    classes: dict[str, Weight] = Field(default_factory=dict)

    def of(self, label: str, annotator: int | None) -> float:
        """1 for every name that is not listed."""
        person = 1.0 if annotator is None else self.annotators.get(annotator, 1.0)
        return person * self.classes.get(label, 1.0)


class Refresh(_Frozen):
    """When and how a new head is fitted."""

    after: Positive = 10  # new or changed labels
    throttle_s: Annotated[Number, Field(ge=0, le=86_400)] = 1.0  # at least this long between two starts
    class_min: Positive = 1  # labels that a class needs to enter the head


class Gate(_Frozen):
    """What a challenger must show."""

    tolerance: Share = 0.02  # loss of accuracy that is still "as good"
    loss_tolerance: Annotated[Number, Field(ge=0)] = 0.03  # of a refresh: log loss that new labels may add to old ones
    contradiction: Annotated[Number, Field(ge=0)] = 3.0  # standard errors that new labels may surprise the live head
    reference_tolerance: Share = 0.03  # loss of accuracy, summed up since the reference version
    min_test_labels: Positive = 50  # test labels below which a retrain cannot be judged
    min_accuracy: Share = 0.60  # on the test split, once it has that many labels
    recall_floor: Share = 0.20  # of every class ...
    recall_drop: Share = 0.15  # ... and what it may lose against the champion
    recall_labels: Positive = 5  # a class's labels below which its recall says nothing
    max_ece: Share = 0.15  # mean gap between what it says and how often it is right, from 100 labels on
    robustness_tolerance: Share = 0.05  # loss against the champion on images with noise and blur
    slowdown: Annotated[Number, Field(ge=0)] = 0.30  # an image may take this share longer than with the champion
    approval: Literal["auto", "manual", "auto-for-refresh"] = "auto"  # who has the last word


PolicyName = Literal["auto", "cluster-margin", "margin", "uncertain-herding", "new-classes", "herding", "random"]
REMOVED = {  # policies of earlier releases, which won on no curve of ours: `auto` orders in their place
    "entropy", "least-confidence", "badge", "density-margin", "class-need", "centroids", "typical", "k-center",
}  # fmt: skip


@functools.cache
def _warn_once(name: str, value: str, instead: str) -> None:
    log.warning(
        f"{name}: {value} was removed, {instead} takes its place; change it in the project's YAML",
        action="removed_value", name=name, value=value, instead=instead,
    )  # fmt: skip


class Queue(_Frozen):
    """What is shown next."""

    policy: PolicyName = "auto"  # which images people are asked for; auto: by what is known of the model
    quota: Share = 0.10  # of the labels, at least: drawn at random from test and audit, shown blind
    quota_most: Share = 0.25  # at most, while a retrain or a bound lacks some: 200 train labels come with 50 of test
    blind: Share = 0.05  # of the train images: shown blind, too, so that it can be told what pre-labels do to people
    window: Positive = 200  # predictions pushed ahead into Label Studio

    @field_validator("policy", mode="before")
    @classmethod
    def _still_there(cls, policy: object) -> object:
        if isinstance(policy, str) and policy in REMOVED:
            _warn_once("queue.policy", policy, "auto")
            return "auto"
        return policy


class AnswersPolicy(_Frozen):
    """Which answers count. A ground truth always outranks the others."""

    resolve: Literal["newest", "majority"] = "newest"  # of several answers to one task
    from_predictions: bool = False  # those that Label Studio made from predictions in bulk count, too
    reopen_empty: bool | None = None  # empty ones are deleted, so that the task is shown again; none: where we made it

    @field_validator("resolve", mode="before")
    @classmethod
    def _always(cls, resolve: object) -> object:
        return "newest" if resolve == "ground-truth-first" else resolve

    @property
    def non_defaults(self) -> dict[str, Any]:
        """What has a part in what is learned, where it is not the default."""
        default = AnswersPolicy()
        return {
            name: getattr(self, name)
            for name in ("resolve", "from_predictions") if getattr(self, name) != getattr(default, name)
        }  # fmt: skip


class Retention(_Frozen):
    """What is kept of the past. The champion, its reference and the way back always are."""

    automatic: bool = True  # tidied once a day
    versions: Positive = 20  # the newest
    days: Positive = 30  # versions that were live, and snapshots of runs, for so long
    log_days: Positive = 365  # versions that the deployment log names, and run records, for so long


class Stop(_Frozen):
    """When labelling is enough: advice alone, nothing ends by itself."""

    target: Share | None = None  # accuracy on random images that is wanted
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] = 0.95  # how sure it must be that the target is reached
    gain: Share = 0.005  # what 100 more labels must bring to be worth it


class ProjectConfig(_Frozen):
    """One project. Every field has a default; `configs/*.yaml` name what differs."""

    name: str = "labelloop"
    labels: tuple[str, ...] = ()  # empty: the class folders' names, or those of the label config
    label_map: dict[str, str | None] = Field(default_factory=dict)  # class -> what it counts as; null: it does not
    backbone: BackboneSpec = BackboneSpec()
    head: HeadSpec = HeadSpec()
    answers: AnswersPolicy = AnswersPolicy()
    weights: LabelWeights = LabelWeights()
    buckets: SplitPolicy = SplitPolicy()
    refresh: Refresh = Refresh()
    retrain: Retrain = Retrain()
    gate: Gate = Gate()
    queue: Queue = Queue()
    retention: Retention = Retention()
    stop: Stop = Stop()
    seed: Annotated[Whole, Field(le=2**32 - 1)] = 0  # what every library takes

    @field_validator("label_map")
    @classmethod
    def _ends(cls, label_map: dict[str, str | None]) -> dict[str, str | None]:
        for first in label_map:
            name: str | None = first
            for _ in label_map:
                name = label_map.get(name) if name is not None else None
            if name is not None and name in label_map:
                raise ValueError(f"class {first!r} ends nowhere: its map goes in a circle")
        return label_map

    @property
    def hash(self) -> str:
        """Names this configuration in run records, without what has no part in what is learned."""
        parts = self.model_dump(mode="json", exclude={"retention", "stop", "answers"})
        if self.answers.non_defaults:
            parts["answers"] = self.answers.non_defaults
        later = {"group_by", "test_set"}
        parts["buckets"] = {k: v for k, v in parts["buckets"].items() if k not in later} | self.buckets.non_defaults
        return digest(canonical(parts))[:12]

    @property
    def recipe(self) -> str:
        """Names what a retrain does: another recipe is worth another retrain."""
        parts = {"backbone": self.backbone.model_dump(mode="json"), "retrain": self.retrain.recipe, "seed": self.seed}
        if self.weights != LabelWeights():
            parts["weights"] = self.weights.model_dump(mode="json")
        if self.answers.non_defaults:
            parts["answers"] = self.answers.non_defaults
        return digest(canonical(parts))[:12]


def parse_config(data: Any, source: str) -> ProjectConfig:
    """Validated config; SettingsError names the field and the file."""
    try:
        return ProjectConfig.model_validate(data or {})
    except ValidationError as error:
        lines = [f"  {in_words(e)}" for e in error.errors()]
        lines[TOLD:] = [f"  and {len(lines) - TOLD:,} more"] if len(lines) > TOLD else []
        raise SettingsError(f"{source} is not a valid project config:\n" + "\n".join(lines)) from error


def load_config(path: Path) -> ProjectConfig:
    """Read one YAML file, with distrust."""
    return parse_config(read_yaml(path, texts=_texts), str(path))


def _texts(document: Node) -> list[Node]:
    """Where names of classes stand, which people forget to quote."""
    labels = next((value for key, value in values_at(document) if key.value == "labels"), None)
    listed = labels.value if isinstance(labels, SequenceNode) else []
    mapped = values_at(document, "label_map")
    meant = [value for _, value in mapped if not value.tag.endswith(":null")]  # null: it does not count
    weighed = [key for key, _ in values_at(document, "weights", "classes")]
    named = [value for key, value in values_at(document) if key.value == "name"]
    return [*named, *listed, *(key for key, _ in mapped), *meant, *weighed]
