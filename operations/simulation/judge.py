"""Images whose class is known in, accuracy out: of the serving model by HTTP, of earlier versions by their heads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from labelloop.errors import LabelloopError
from labelloop.model.classifier import Classifier
from labelloop.records.versions import BackboneRecord
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from operations.deployment import Deployment
from operations.projects.imagefolder import LabelledFile
from operations.reporting import Report

BATCH = 50
READERS = 2


def accuracy_through_predict(
    deployment: Deployment, record: ProjectRecord, test: Sequence[LabelledFile], report: Report
) -> float | None:
    """Share of right answers of the live model, asked as Label Studio asks. An image without an answer is wrong."""
    settings = deployment.settings
    auth = (settings.backend_user, settings.backend_password or "")
    right = 0
    with httpx.Client(base_url=settings.backend_url, auth=auth, timeout=100) as client:
        for start in range(0, len(test), BATCH):
            report("ask /predict about the test images", start, len(test))
            chunk = test[start : start + BATCH]
            answers = _predict(client, record, [_uri(settings.image_buckets[0], f) for f in chunk])
            right += sum(answer == f.label for answer, f in zip(answers, chunk, strict=True))
    return right / len(test) if test else None


def accuracy_per_version(
    deployment: Deployment, record: ProjectRecord, test: Sequence[LabelledFile], report: Report
) -> dict[str, float]:
    """Version -> accuracy, for all that were ever live. The backbone runs once per image, the heads are cheap."""
    registry = deployment.registry(record)
    names = dict.fromkeys(d.version for d in registry.deployments())
    versions = [registry.version(name) for name in names]
    accuracies: dict[str, float] = {}
    for backbone in dict.fromkeys(v.backbone for v in versions):
        features = _features(registry, registry.backbone(backbone), test, report)
        for version in versions:
            if version.backbone == backbone:
                head = registry.head(version)
                accuracies[version.name] = _accuracy(head, features, test, LabelRules.of(record.config))
    return {name: accuracies[name] for name in names}


def _predict(client: httpx.Client, record: ProjectRecord, uris: Sequence[str]) -> list[str | None]:
    tasks = [{"id": i, "data": {record.schema.data_key: uri}} for i, uri in enumerate(uris)]
    answer = client.post(
        "/predict", json={"tasks": tasks, "project": record.reference, "label_config": record.label_config}
    )
    if answer.status_code != 200:
        raise LabelloopError(f"/predict answered {answer.status_code}: {answer.text[:300]}")
    return [record.schema.read(r["result"])[0] for r in answer.json()["results"]]


def _features(
    registry: Registry, record: BackboneRecord, test: Sequence[LabelledFile], report: Report
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    from labelloop.model import net

    backbone = net.load(record, registry.backbone_weights(record))
    rows = []
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(test), BATCH):
            report("judge every version on the test images", start, len(test))
            pixels = pool.map(lambda f: backbone.decode(f.path.read_bytes()), test[start : start + BATCH])
            rows.append(backbone.features(np.stack(list(pixels))))
    return np.concatenate(rows)


def _accuracy(
    head: Classifier,
    features: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    test: Sequence[LabelledFile],
    rules: LabelRules,
) -> float:
    names = rules.names(head.labels)
    answers = names.of(head.probabilities(features)).argmax(axis=1)
    right = sum(names.labels[int(a)] == f.label for a, f in zip(answers, test, strict=True))
    return round(float(right) / len(test), 4)


def _uri(bucket: str, file: LabelledFile) -> str:
    return f"s3://{bucket}/{file.key}"
