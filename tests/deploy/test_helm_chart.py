"""The Helm chart, rendered by Helm itself and checked against the schemas of Kubernetes."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import commands

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is missing: make test-deploy")
schemas = pytest.importorskip("kubernetes_validate", reason="make test-deploy installs it")

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "tollgate"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()
VALUES: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(images:.*?)```", DOCUMENT, re.S)[0])
EVERYTHING = {
    "autoscaling": {"worker": {"enabled": True}},
    "ingress": {**VALUES["ingress"], "gatewayHost": "gateway.example.com"},
    "imagePullSecrets": [{"name": "registry"}],
    "agents": {"nodeSelector": {"pool": "agents"}},
    "secrets": {**VALUES["secrets"], "sockets": "tollgate-sockets"},
    "sockets": {"enabled": True},
}
PROCESSES = {"web", "worker", "celery", "beat", "reconciler", "agents", "gateway"}
Manifest = dict[str, Any]


def rendered(**more: Any) -> list[Manifest]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render({**VALUES, **more}, name="demo", namespace="tollgate")
    return [one for text in files.values() for one in yaml.safe_load_all(text) if one]


@cache
def defaults() -> list[Manifest]:
    return rendered()


def of_kind(kind: str) -> dict[str, Manifest]:
    """Return the manifests of a kind by the names of their processes."""
    return {
        one["metadata"]["name"].removeprefix("demo-"): one
        for one in defaults()
        if one["kind"] == kind
    }


def pods() -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield each process, its pod and its only container."""
    for name, workload in {**of_kind("Deployment"), **of_kind("Job")}.items():
        pod = workload["spec"]["template"]["spec"]
        [container] = pod["containers"]
        yield name, pod, container


@pytest.mark.parametrize("more", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_finds_nothing_to_complain_about(more: dict[str, Any]) -> None:
    found = helm.lint(CHART, {**VALUES, **more}, strict=True)
    assert found["errors"] == []
    assert {one["error"] for one in found["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_schemas_of_kubernetes_know_every_field(version: str) -> None:
    checked = [one for one in rendered(**EVERYTHING) if one["kind"] != "ScaledObject"]
    assert len(checked) > 25
    for manifest in checked:
        schemas.validate(manifest, version, strict=True)


def test_what_is_missing_is_named() -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError, match=r"Set \w+"):
        chart.render({}, name="demo", namespace="tollgate")
    for block, name in (("images", "django"), ("secrets", "web"), ("temporal", "address")):
        with pytest.raises(helm.HelmError, match=f"Set {block}.{name}"):
            rendered(**{block: {**VALUES[block], name: ""}})


def test_the_processes_are_started_as_make_up_starts_them() -> None:
    assert of_kind("Deployment").keys() == PROCESSES
    started = {name: container["command"] for name, _, container in pods()}
    assert started == {
        "web": commands.WEB,
        "worker": commands.WORKER,
        "celery": commands.CELERY,
        "beat": commands.BEAT,
        "reconciler": commands.RECONCILER,
        "agents": commands.AGENT_WORKER,
        "gateway": commands.GATEWAY,
        "migrate": commands.MIGRATE,
    }


def test_every_variable_is_documented_and_read_by_its_process() -> None:
    documented = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    for name, _, container in pods():
        given = {each["name"] for each in container["env"]}
        assert given <= documented, name
        in_compose = COMPOSE[name]["environment"].keys() | {"TEMPORAL_NAMESPACE"}
        assert given <= in_compose, name


def test_secrets_reach_only_the_processes_that_need_them() -> None:
    for name, _, container in pods():
        secrets = [each["secretRef"]["name"] for each in container.get("envFrom", [])]
        if name == "web":
            assert secrets == ["tollgate-django", "tollgate-web"]
        elif name == "gateway":
            assert secrets == ["tollgate-gateway"]
        else:
            assert secrets == ([] if name == "agents" else ["tollgate-django"]), name
        for variable in container["env"]:
            assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD|DATABASE|REDIS", variable["name"])
    assert not of_kind("Secret")


def test_the_lists_of_secrets_name_variables_that_exist() -> None:
    text = (CHART / "values.yaml").read_text()
    block = text[text.index("\nsecrets:") : text.index("\ntemporal:")]
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", block)) - {"TEMPORAL_API_KEY"}  # temporalio's own
    assert len(named) > 10
    assert named <= set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))


def test_agents_reach_temporal_and_the_gateway_only() -> None:
    policy = of_kind("NetworkPolicy")["agents"]["spec"]
    assert policy["ingress"] == []
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [7233], [8100]]
    [only] = policy["egress"][2]["to"]
    assert only["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "gateway"


def test_django_and_the_gateway_share_no_store() -> None:
    stores = {"database": 1, "redis": 2, "gatewayRedis": 3}
    narrow = {
        name: {"port": 6379, "peers": [{"ipBlock": {"cidr": f"10.0.0.{number}/32"}}]}
        for name, number in stores.items()
    }
    reached: dict[str, set[str]] = {}
    for one in rendered(networkPolicy=narrow):
        if one["kind"] == "NetworkPolicy":
            found = re.findall(r"10\.0\.0\.([123])/32", yaml.safe_dump(one["spec"]["egress"]))
            reached[one["metadata"]["name"].removeprefix("demo-")] = set(found)
    assert reached == {
        "web": {"1", "2"},
        "worker": {"1", "2"},
        "celery": {"1", "2"},
        "reconciler": {"1", "2"},
        "beat": {"2"},
        "migrate": {"1"},
        "gateway": {"3"},
        "agents": set(),
    }


def test_every_pod_has_a_policy_and_only_callers_are_let_in() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies.keys() == PROCESSES | {"migrate"}
    callers = {
        name: {
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
            for rule in policy["spec"]["ingress"]
            for peer in rule["from"]
            if "podSelector" in peer
        }
        for name, policy in policies.items()
    }
    assert callers["web"] == {"gateway"}
    assert callers["gateway"] == {"agents", "celery", "web", "worker"}
    assert not any(callers[name] for name in callers.keys() - {"web", "gateway"})


def test_selectors_find_their_pods() -> None:
    pods_labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for name, one in {**of_kind("Deployment"), **of_kind("Job")}.items()
    }
    selectors = {
        **{name: one["spec"]["selector"] for name, one in of_kind("Service").items()},
    }
    assert selectors.keys() == {"web", "gateway"}
    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, one in of_kind(kind).items():
            assert one["spec"]["selector"]["matchLabels"] == pods_labels[name]
    for name, one in of_kind("NetworkPolicy").items():
        assert one["spec"]["podSelector"]["matchLabels"] == pods_labels[name]
    assert all(selector == pods_labels[name] for name, selector in selectors.items())


def test_probes_ask_paths_that_exist() -> None:
    probes = {
        name: [
            container[kind]["httpGet"]["path"]
            for kind in ("startupProbe", "readinessProbe", "livenessProbe")
            if kind in container
        ]
        for name, _, container in pods()
    }
    assert probes["web"] == ["/_ready", "/_ready", "/_health"]
    assert probes["gateway"] == ["/_ready", "/_health", "/_health"]
    assert probes["worker"] == probes["celery"] == probes["reconciler"] == ["/metrics", "/metrics"]


def test_pods_get_as_little_as_they_need() -> None:
    for name, pod, container in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own.get("readOnlyRootFilesystem", False) is (name != "agents")
        assert container["resources"]["limits"]["memory"]
    assert {name for name, pod, _ in pods() if pod.get("hostUsers") is False} == {"agents"}


def test_a_process_has_the_time_to_stop_that_compose_gives_it() -> None:
    for name, pod, _ in pods():
        given = COMPOSE[name].get("stop_grace_period", "10s")
        if name != "migrate":
            assert pod["terminationGracePeriodSeconds"] > int(given.removesuffix("s")), name


def test_migrations_come_first() -> None:
    job = of_kind("Job")["migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_beat_never_runs_twice_and_cpu_scales_what_has_one_core() -> None:
    deployments = of_kind("Deployment")
    assert deployments["beat"]["spec"]["strategy"] == {"type": "Recreate"}
    assert deployments["beat"]["spec"]["replicas"] == 1
    assert of_kind("HorizontalPodAutoscaler").keys() == {"web", "gateway"}
    scaled = {name for name, one in deployments.items() if "replicas" not in one["spec"]}
    assert scaled == {"web", "gateway"}
    assert of_kind("PodDisruptionBudget").keys() == PROCESSES - {"beat"}


def test_without_agents_the_chart_has_no_manifest_for_them() -> None:
    names = [one["metadata"]["name"] for one in rendered(agents={"enabled": False})]
    assert [name for name in names if "agents" in name] == []


def test_socket_mode_is_a_process_of_its_own_with_its_own_secret() -> None:
    assert "sockets" not in of_kind("NetworkPolicy")
    with pytest.raises(helm.HelmError, match=r"Set secrets\.sockets"):
        rendered(sockets={"enabled": True})
    [sockets] = [
        one
        for one in rendered(**EVERYTHING)
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "demo-sockets"
    ]
    [container] = sockets["spec"]["template"]["spec"]["containers"]
    assert container["command"] == commands.SOCKETS
    secrets = [each["secretRef"]["name"] for each in container["envFrom"]]
    assert secrets == ["tollgate-django", "tollgate-sockets"]
    grace = sockets["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > int(COMPOSE["sockets"]["stop_grace_period"].removesuffix("s"))


def test_the_document_shows_a_valid_configuration_of_prometheus() -> None:
    [block] = re.findall(r"```yaml\n(scrape_configs:.*?)```", DOCUMENT, re.S)
    jobs = yaml.safe_load(block)["scrape_configs"]
    assert all(job["job_name"].startswith("tollgate-") for job in jobs)
    names = {job["relabel_configs"][1]["regex"] for job in jobs}
    assert names == {
        port["name"] for _, _, container in pods() for port in container.get("ports", [])
    }
