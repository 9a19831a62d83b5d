"""A version exported as a model file, here and now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cli.here.context import context_of
from embedded.environments import ensure_environment
from labelloop.errors import SettingsError
from labelloop.export.folders import safe_name
from labelloop.model import net
from labelloop.records.versions import BackboneRecord, Version
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.models.card import model_card
from operations.reporting import Report
from retrain_worker.context import ProjectContext
from retrain_worker.exports import onnx_file, openvino_file, torchscript_file
from retrain_worker.exports.export import Engine, ExportedModel, Pool, Wanted, export
from retrain_worker.exports.folder import Origin
from retrain_worker.exports.formats import Format, check_holds
from retrain_worker.exports.licence import licence_of
from retrain_worker.exports.parts import Parts
from retrain_worker.exports.tflite_file import LiteRt


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a person asked for."""

    version: str | None  # None: the champion
    form: Format
    quantised: bool
    out: Path | None  # None: a folder of the project's name, here


def export_here(
    deployment: Deployment, record: ProjectRecord, request: ExportRequest, report: Report
) -> ExportedModel:  # fmt: skip
    """Written and checked; see `retrain_worker.exports.export`."""
    context = context_of(deployment)
    project, version = context.project(record.key), deployment.version(record, request.version)
    head = project.registry.head(version)
    check_holds(request.form, head, quantised=request.quantised)  # before a network is loaded
    engine = _engine(request.form, report)
    names = LabelRules.of(record.config).names(head.labels)
    if not names.labels:
        raise SettingsError(f"all classes of {version.name} were dropped since: there is nothing left to export")
    backbone = project.registry.backbone(version.backbone)
    network = net.load(backbone, context.weights(project, backbone), device="cpu")
    net.verify(network)
    project.catalogue.update()
    origin = Origin(
        record.title, version, backbone, licence_of(_first(project, version)),
        model_card(deployment, record, version.name),
    )  # fmt: skip
    pool = Pool(list(project.catalogue.images.values()), project.images)
    wanted = Wanted(request.form, request.out or Path(_name(record, version, request)), request.quantised)
    return export(Parts(network, head, names), origin, pool, wanted, engine=engine, report=report)


def _name(record: ProjectRecord, version: Version, request: ExportRequest) -> str:
    title = "-".join(safe_name(record.title).split())
    return f"{title}-{version.name}-{request.form}" + ("-int8" if request.quantised else "")


def _engine(form: Format, report: Report) -> Engine:
    if form is Format.TFLITE:
        return LiteRt(ensure_environment("litert", lambda line: report(line, 0, 1)))
    return {Format.ONNX: onnx_file, Format.OPENVINO: openvino_file, Format.TORCHSCRIPT: torchscript_file}[form]


def _first(project: ProjectContext, version: Version) -> BackboneRecord:
    """The network as it was before it learned anything here: its weights have the licence."""
    backbone = project.registry.backbone(version.backbone)
    return (project.registry.initial_backbone() or backbone) if backbone.snapshot else backbone
