"""A folder of images in; uploaded, wired and seeded project out. What `up` and `simulate` share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from labelloop.config.project import ProjectConfig, load_config
from labelloop.errors import LabelloopError, SettingsError, StudioError
from labelloop.images.file_names import keep_names
from labelloop.images.reader import LeftOut
from labelloop.labels.results import SEED_MARK
from labelloop.names import encodable, shown
from labelloop.objects.storage import S3Store
from labelloop.records.json import canonical
from labelloop.records.versions import COLD_START
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.doctor.finding import Finding, fine, warn
from operations.network import choose_network
from operations.projects.checked import TITLE, check_classes, check_title
from operations.projects.digits import write_digits
from operations.projects.imagefolder import (
    LABELS,
    LabelledFile,
    as_uploaded,
    classes_of,
    left_out,
    names_apart,
    pick_seeds,
    renamed,
    scan,
    upload,
)
from operations.projects.wiring import Wish, check_wish, ensure_bucket, wire
from operations.reporting import Report
from operations.status import StatusReader

DIGITS_SEEDS = 40
DIGITS_CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
SET_UP = "set-up.json"  # written once all images are tasks and the seeds are revealed
IMPORT_TIMEOUT_S = 1800.0
READY_TIMEOUT_S = 1800.0
ALWAYS_SHOWN = (LEFT_OUT, NAMES, CLASSES) = (
    "left out",
    "names",
    "classes",
)  # findings that people should see although nothing is wrong


@dataclass(frozen=True, slots=True)
class ImageSource:
    """The images of a demo, and the config they are used with."""

    config: ProjectConfig
    files: Sequence[LabelledFile]
    prefix: str  # in the image bucket
    seeds: int
    named: tuple[str, ...] = ()  # classes that were given by name
    demo: bool = False  # the digits
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)  # files of the folder, by reason

    @property
    def by_folder(self) -> bool:
        """Whether the classes are the names of folders: of days or cameras perhaps, and no classes."""
        untold = not (self.config.labels or self.named or self.demo)
        return untold and any(f.label and f.label == f.name.partition("/")[0] for f in self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: the config's, those that were given, else those of the folders or of the list of labels."""
        return self.config.labels or self.named or classes_of(self.files)


def open_source(
    state_dir: Path, images: Path | None, config: Path | None, seeds: int | None,
    *, labels: Path | None = None, classes: Sequence[str] = (),
) -> ImageSource:  # fmt: skip
    """The given folder of images, or the digits. Without a config the folder gives the name."""
    folder = images.expanduser() if images else write_digits(state_dir / "digits")  # ~ is no shell's within make
    loaded = load_config(config) if config else _default_config(images)
    prefix = f"{loaded.name}/"
    default = DIGITS_SEEDS if images is None else 0
    source = ImageSource(
        loaded, scan(folder, prefix, labels, loaded.labels or classes), prefix, default if seeds is None else seeds,
        tuple(classes), demo=images is None, left_out=left_out(folder),
    )  # fmt: skip
    _check_classes(source, folder)
    return source


def _check_classes(source: ImageSource, folder: Path) -> None:
    """SettingsError where people could not choose what is right, or not choose at all."""
    check_title(source.config.name)
    check_classes(source.classes)
    if source.config.labels and source.named:
        raise SettingsError("the classes are given twice: keep `labels:` of the config, or --classes")
    if len(source.classes) < 2:
        raise SettingsError(
            f"{folder} gives {len(source.classes)} classes, and two are needed: name them (--classes cat,dog, or "
            f"`labels:` in the config), or give the labels (class folders, or a {LABELS} with the line file,label)"
        )
    unknown = [f for f in source.files if f.label is not None and f.label not in source.classes]
    if unknown:
        raise SettingsError(
            f"{unknown[0].path} is labelled {unknown[0].label!r}, which is not among the classes "
            f"({', '.join(source.classes)}): fix the label, or add the class"
        )
    if source.seeds and not classes_of(source.files):
        raise SettingsError(f"there are no labels to reveal {source.seeds} of: add a {LABELS}, or leave out --seed")


def _default_config(images: Path | None) -> ProjectConfig:
    if images is None:
        return load_config(DIGITS_CONFIG) if DIGITS_CONFIG.exists() else ProjectConfig(name="digits")
    return ProjectConfig(name=encodable(Path(os.path.realpath(images)).name)[: TITLE[1]])


def set_up(deployment: Deployment, source: ImageSource, report: Report) -> tuple[ProjectRecord, list[Finding]]:
    """Upload, wire, wait until Label Studio has every image as a task, reveal the seeds. Safe to repeat."""
    bucket = deployment.settings.image_buckets[0]
    uri = f"s3://{bucket}/{source.prefix}"
    wish = Wish(source.config, uri, source.classes, choose=lambda: choose_network(deployment, uri))
    check_wish(wish, deployment.settings)
    ensure_bucket(deployment.s3, deployment.settings.state_bucket)
    ensure_bucket(deployment.s3, bucket)
    images = S3Store(deployment.s3, bucket)
    source = replace(
        source, files=as_uploaded(source.files, {i.key for i in images.list(source.prefix)}, source.prefix)
    )
    upload(
        images, source.files, source.prefix,
        lambda done: report("upload images to S3", done, len(source.files)),
    )  # fmt: skip
    report("choose the network, connect Label Studio", 0, 1)
    wish = replace(wish, adopt=known_project(deployment, uri))
    record, findings = wire(deployment.studio, deployment.projects, deployment.settings, wish)
    report("choose the network, connect Label Studio", 1, 1)
    names = names_apart(source.files, source.prefix)
    keep_names(deployment.within(record), {f"s3://{bucket}/{key}": name for key, name in names.items()})
    if not deployment.within(record).exists(SET_UP):  # later, people may have removed tasks or taken seeds back
        _wait_imported(deployment, record, len(source.files), report)
        reveal(deployment, record, source, report)
        deployment.within(record).put(SET_UP, canonical({"images": len(source.files), "seeds": source.seeds}))
    return record, [*findings, *notes_on(source, record)]


def notes_on(source: ImageSource, record: ProjectRecord) -> list[Finding]:
    """What of the folder is not in the project, not under its own name, or has other classes than were named now."""
    findings = []
    if source.named and set(source.named) != set(record.schema.classes):
        classes = ", ".join(record.schema.classes)
        remedy = "change them in its Labeling Interface in Label Studio, or delete it there and run this again"
        findings.append(warn(CLASSES, f"the project exists and has {classes}: --classes is ignored", remedy))
    if source.by_folder and set(source.classes) == set(record.schema.classes):
        note = f"{len(source.classes)}, by the names of the folders; others: --classes cat,dog"
        findings.append(fine(CLASSES, note))
    if source.left_out:
        rows = [f"{n.count} ({why}, e.g. {shown(n.example)})" for why, n in source.left_out.items()]
        findings.append(
            fine(LEFT_OUT, f"{sum(n.count for n in source.left_out.values())} of the folder: {'; '.join(rows)}")
        )
    if changed := renamed(source.files, source.prefix):
        one = f"{shown(changed[0].name)} is {shown(changed[0].key)} there"
        findings.append(fine(NAMES, f"{len(changed)} cannot be carried to S3: {one}; exports have both"))
    return findings


def wait_ready(deployment: Deployment, record: ProjectRecord, report: Report) -> None:
    """Until the queue has its first order: the model's, or the cold start's."""
    began, reader = time.monotonic(), StatusReader(deployment)
    while not (deployment.studio.project(record.id).model_version or "").startswith(("v", COLD_START)):
        if time.monotonic() - began > READY_TIMEOUT_S:
            raise LabelloopError("the first order of the queue did not come: look at logs/ in the state directory")
        done, of = _featurised(reader, record)
        report("load the network, compute features", done, of)
        if of and done >= of:
            report("put the queue into order", 0, 1)
        time.sleep(0.5)


def _featurised(reader: StatusReader, record: ProjectRecord) -> tuple[int, int]:
    for project in reader.read().projects:
        if project.key == record.key:
            return int(project.pool.get("featurised", 0)), int(project.pool.get("images", 0))
    return 0, 0


def reveal(deployment: Deployment, record: ProjectRecord, source: ImageSource, report: Report) -> int:
    """Submit the true class of a few train images, marked as seeds; those already answered are left alone."""
    seeds = pick_seeds(source.files, source.seeds, source.config.buckets.shares()) if source.seeds else []
    if not seeds:
        return 0
    studio, bucket = deployment.studio, deployment.settings.image_buckets[0]
    stubs = {s.uri: s for page in studio.all_tasks(record.id, record.schema) for s in page}
    for done, file in enumerate(seeds, 1):
        stub = stubs.get(f"s3://{bucket}/{file.key}")
        if stub and not stub.annotations and file.label is not None:
            result = [{**item, "meta": {"text": [SEED_MARK]}} for item in record.schema.result(file.label)]
            studio.annotate(stub.id, result)
        report("reveal seed labels", done, len(seeds))
    return len(seeds)


def known_project(deployment: Deployment, image_uri: str) -> int | None:
    """The project that was wired to these images before, if Label Studio still has that very one."""
    for record in deployment.projects.all():
        if record.image_uri != image_uri:
            continue
        try:
            if deployment.studio.project(record.id).created == record.created:
                return record.id
        except StudioError as error:
            if error.status != 404:
                raise
    return None


def _wait_imported(deployment: Deployment, record: ProjectRecord, total: int, report: Report) -> None:
    """`sync` turns the objects into tasks; here we only watch, so that no two imports run at once."""
    studio, began = deployment.studio, time.monotonic()
    while (count := studio.task_count(record.id)) < total:
        report("sync images into Label Studio", count, total)
        if time.monotonic() - began > IMPORT_TIMEOUT_S:
            raise LabelloopError(
                f"Label Studio has {count} of {total} images after {IMPORT_TIMEOUT_S / 60:.0f} minutes: look at "
                "logs/sync.log and logs/label_studio.log in the state directory"
            )
        time.sleep(0.5)
