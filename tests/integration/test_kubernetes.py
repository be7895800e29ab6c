"""The manifests of `deploy/kubernetes`, rendered by kubectl: as Kubernetes' own schemas have them, true to the code.

A number that stands in a manifest because another one stands in the code is compared with that one here.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from interfaces.topology import MAX_SHARDS, Topology
from tests.services.command import ROOT
from tests.services.packages import require_programs
from worker.cli.ending import CLOSING_SECONDS
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings, load_settings
from worker.supervisor import KILL_MARGIN_SECONDS

HOME = ROOT / "deploy/kubernetes"
PARTS = ("workers", "keda", "monitoring", "rabbitmq")
KUBERNETES = "1.30"
"""The oldest version whose schemas they keep to."""

SCHEMAS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
PERMISSIONS: dict[str, list[dict[str, str]]] = json.loads((ROOT / "deploy/rabbitmq/permissions.json").read_text())
UNITS = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1}

Manifest = dict[str, Any]


def render(part: str) -> list[Manifest]:
    require_programs({"kubectl": "kubernetes-client"})
    done = subprocess.run(
        ["kubectl", "kustomize", str(HOME / part)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Manifest]]:
    return {part: render(part) for part in PARTS}


@pytest.fixture
def manifests(parts: dict[str, list[Manifest]]) -> list[Manifest]:
    return [manifest for part in parts.values() for manifest in part]


def kind_of(manifest: Manifest) -> str:
    return f"{manifest['apiVersion']} {manifest['kind']}"


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def validate(manifest: Manifest) -> None:
    """Raise for what the API server would refuse, and for fields it would not know."""
    if (kind := kind_of(manifest)) in SCHEMAS:
        assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
        schema = {"definitions": SCHEMAS["definitions"], **SCHEMAS[kind]}
        jsonschema.Draft202012Validator(schema).validate(manifest["spec"])
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def validate_all(manifests: Iterable[Manifest]) -> None:
    for manifest in manifests:
        validate(manifest)


def amount(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert found is not None
    return float(found[1]) * UNITS[found[2]]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


@pytest.fixture
def worker(manifests: list[Manifest]) -> Manifest:
    pod: Manifest = of_kind(manifests, "Deployment")["switchboard-worker"]["spec"]["template"]["spec"]
    return pod


@pytest.fixture
def environment(manifests: list[Manifest]) -> dict[str, str]:
    [settings] = of_kind(manifests, "ConfigMap").values()
    data: dict[str, str] = settings["data"]
    return data


@pytest.fixture
def settings(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a worker reads from its pod, its secrets mounted somewhere else."""
    secrets = {
        "amqp-url": "amqp://switchboard-worker:word@rabbitmq/",
        "redis-url": "redis://switchboard-worker:word@redis/0",
    }
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("/run/secrets/switchboard", str(tmp_path)))
    return load_settings()


def test_every_manifest_is_valid_and_in_the_one_namespace(manifests: list[Manifest]) -> None:
    assert len(manifests) > 15
    validate_all(manifests)
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"switchboard"}


@pytest.mark.parametrize(
    ("part", "right", "wrong"),
    [
        ("workers", "terminationGracePeriodSeconds", "terminationGracePeriod"),
        ("workers", "readinessProbe", "readynessProbe"),
        ("keda", "maxReplicaCount", "maxReplicas"),
        ("keda", "excludeUnacknowledged", "includeUnacked"),
        ("rabbitmq", "podAntiAffinity", "antiAffinity"),
        ("monitoring", "podMetricsEndpoints", "endpoints"),
    ],
)
def test_a_field_that_does_not_exist_is_found(
    parts: dict[str, list[Manifest]], part: str, right: str, wrong: str
) -> None:
    spoilt = yaml.safe_load_all(yaml.safe_dump_all(parts[part]).replace(f"{right}:", f"{wrong}:"))
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate_all(spoilt)


def test_the_settings_of_the_pods_are_settings_of_the_code(environment: dict[str, str], settings: Settings) -> None:
    names = {name.removeprefix(ENV_PREFIX).removesuffix("_FILE").lower() for name in environment}
    assert all(name.startswith(ENV_PREFIX) for name in environment)
    assert names <= Settings.model_fields.keys()
    assert settings.amqp_url.get_secret_value().startswith("amqp://switchboard-worker:")


def test_a_worker_has_longer_to_end_than_it_takes_for_it(worker: Manifest, settings: Settings) -> None:
    longest = settings.drain_timeout + CLOSING_SECONDS + KILL_MARGIN_SECONDS
    assert settings.drain_timeout == Settings.model_fields["drain_timeout"].default
    assert worker["terminationGracePeriodSeconds"] > longest


def test_the_probes_ask_where_the_worker_answers(worker: Manifest, settings: Settings) -> None:
    [container] = worker["containers"]
    [port] = container["ports"]
    assert settings.health_address == f"0.0.0.0:{port['containerPort']}"
    served = (ROOT / "worker/probes.py").read_text()
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    for probe in asked.values():
        assert probe["port"] == port["name"]
        assert f'"{probe["path"]}"' in served
    assert {kind: probe["path"] for kind, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }


def test_every_pod_runs_with_the_least_that_it_needs(manifests: list[Manifest]) -> None:
    user = re.findall(r"^USER (\d+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    for _, pod in pods(manifests):
        assert [str(pod["securityContext"]["runAsUser"])] == user
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "command" not in container  # the image's entry point, which is process 1 and gets its signals


def test_memory_and_disk_hold_what_the_settings_allow(worker: Manifest, settings: Settings) -> None:
    [container] = worker["containers"]
    assert amount(container["resources"]["limits"]["memory"]) >= 2 * settings.in_flight_bytes
    [tmp] = [volume for volume in worker["volumes"] if "emptyDir" in volume]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == tmp["name"]]
    assert settings.attachments_directory.is_relative_to(mount["mountPath"])
    assert amount(tmp["emptyDir"]["sizeLimit"]) > settings.attachments_cache_bytes


def test_secrets_are_only_referred_to(manifests: list[Manifest], environment: dict[str, str]) -> None:
    assert of_kind(manifests, "Secret") == {}
    assert not re.search(r"://[^/\s]*:[^/\s]*@", yaml.safe_dump_all(manifests))
    secret_fields = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert not {f"{ENV_PREFIX}{name.upper()}" for name in secret_fields} & environment.keys()
    mounted = {
        name: [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v] for name, pod in pods(manifests)
    }
    assert mounted == {"switchboard-worker": ["switchboard-worker"], "switchboard-topology": ["switchboard-operator"]}


def test_the_scaler_keeps_to_the_shards_counts_what_is_worked_on_and_shrinks_slowly(
    manifests: list[Manifest], settings: Settings
) -> None:
    [scaled] = of_kind(manifests, "ScaledObject").values()
    spec = scaled["spec"]
    assert spec["scaleTargetRef"]["name"] in of_kind(manifests, "Deployment")
    assert "replicas" not in of_kind(manifests, "Deployment")[spec["scaleTargetRef"]["name"]]["spec"]
    assert spec["maxReplicaCount"] == settings.shards == Settings.model_fields["shards"].default
    assert spec["minReplicaCount"] >= 2
    [trigger] = spec["triggers"]
    told = trigger["metadata"]
    assert (told["protocol"], told["mode"], told["excludeUnacknowledged"]) == ("http", "QueueLength", "false")
    pattern = re.compile(told["queueName"])
    everything = Topology(settings.namespace, MAX_SHARDS, generation=12)
    assert all(map(pattern.search, everything.shard_queues))
    assert not any(map(pattern.search, (everything.dead, f"x{everything.shard_queue(0)}", everything.edge_queue("x"))))
    assert int(told["pageSize"]) >= 2 * settings.shards
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert down["stabilizationWindowSeconds"] > up["stabilizationWindowSeconds"]
    [slow] = down["policies"]
    assert (slow["type"], slow["value"]) == ("Pods", 1)
    assert slow["periodSeconds"] > settings.drain_timeout + CLOSING_SECONDS


def test_disruption_budgets_and_spread_are_about_the_pods_there_are(manifests: list[Manifest]) -> None:
    [deployment] = of_kind(manifests, "Deployment").values()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budgets = of_kind(manifests, "PodDisruptionBudget")
    assert budgets["switchboard-worker"]["spec"]["selector"]["matchLabels"] == labels
    for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels
    cluster = of_kind(manifests, "RabbitmqCluster")["switchboard-rabbitmq"]
    name = cluster["metadata"]["name"]
    assert cluster["spec"]["replicas"] == 3
    # The operator labels its pods with the cluster's name.
    assert budgets[name]["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
    monitors = of_kind(manifests, "PodMonitor")
    assert monitors["switchboard-worker"]["spec"]["selector"]["matchLabels"] == labels


def test_pods_reach_both_servers_and_names_and_are_reached_by_scrapes_alone(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    deny = policies.pop("switchboard-deny")["spec"]
    assert deny == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "switchboard"}}} | {
        "policyTypes": ["Ingress", "Egress"]
    }
    for name, pod in pods(manifests):
        assert pod["securityContext"], name
    ours = [policy["spec"] for name, policy in policies.items() if name != "switchboard-rabbitmq"]
    out = {port["port"] for policy in ours for rule in policy.get("egress", []) for port in rule["ports"]}
    into = {port["port"] for policy in ours for rule in policy.get("ingress", []) for port in rule["ports"]}
    assert (out, into) == ({53, 5671, 5672, 6379, 26379}, {"health"})
    assert all(
        rule.get("to") or rule.get("from") for policy in ours for rule in policy.get("egress", policy.get("ingress"))
    )
    servers = policies["switchboard-servers"]["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"]
    assert servers == policies["switchboard-rabbitmq"]["spec"]["podSelector"]["matchLabels"]


def test_the_users_of_the_cluster_have_the_permissions_of_the_shipped_file_and_no_others(
    manifests: list[Manifest],
) -> None:
    for kind, key, fields in (
        ("Permission", "permissions", ("configure", "write", "read")),
        ("TopicPermission", "topic_permissions", ("exchange", "write", "read")),
    ):
        given = {
            manifest["spec"]["user"]: {"vhost": manifest["spec"]["vhost"], **manifest["spec"]["permissions"]}
            for manifest in of_kind(manifests, kind).values()
        }
        assert given == {
            entry["user"]: {name: entry[name] for name in ("vhost", *fields)} for entry in PERMISSIONS[key]
        }
    users = of_kind(manifests, "User")
    assert users.keys() == {entry["user"] for entry in PERMISSIONS["permissions"]}
    tagged = {name for name, user in users.items() if user["spec"].get("tags")}
    assert tagged == {"switchboard-operator", "switchboard-scaler"}
    for name, user in users.items():
        assert user["spec"]["importCredentialsSecret"]["name"] == name
        assert user["spec"].get("tags", ["management"]) == ["management"]


def test_the_image_has_the_version_of_the_package(manifests: list[Manifest]) -> None:
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    images = {container["image"] for _, pod in pods(manifests) for container in pod["containers"]}
    assert images == {f"switchboard:{version}"}


def test_probes_give_up_in_the_order_of_their_gravity(worker: Manifest) -> None:
    [container] = worker["containers"]
    seconds = [
        container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
        for probe in ("readinessProbe", "livenessProbe", "startupProbe")
    ]
    assert all(sooner < later for sooner, later in pairwise(seconds))


def test_the_overlay_of_the_page_names_what_there_is(manifests: list[Manifest]) -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE | re.DOTALL)
    overlay = yaml.safe_load(block)
    assert [(ROOT / path.partition("/")[2]).is_dir() for path in overlay["resources"]] == [True]
    [generated] = overlay["configMapGenerator"]
    assert any(name.startswith(f"{generated['name']}-") for name in of_kind(manifests, "ConfigMap"))
    names = {literal.partition("=")[0] for literal in generated["literals"]}
    assert {
        name.removeprefix(ENV_PREFIX).removesuffix("_FILE").lower() for name in names
    } <= Settings.model_fields.keys()
    [patch] = overlay["patches"]
    assert patch["target"]["name"] in of_kind(manifests, patch["target"]["kind"])
    assert [image["name"] for image in overlay["images"]] == ["switchboard"]
