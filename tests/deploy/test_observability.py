"""The alerts and dashboards name only metrics that exist, and the real tools accept them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import billing.metrics
import config.request_metrics
import gateway.telemetry.metrics
import projects.oauth.log_in_throttle
import quota.metrics
import slack_bot.socket_mode.metrics
import workflows.metrics
from config.store_metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
DEFINED_IN = (
    billing.metrics,
    config.request_metrics,
    gateway.telemetry.metrics,
    projects.oauth.log_in_throttle,
    quota.metrics,
    slack_bot.socket_mode.metrics,
    workflows.metrics,
)
OF_PROMETHEUS = {"job", "instance", "le"}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{name}: {panel['title']} {target['refId']}": target["expr"]
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    },
}


def exported() -> dict[str, set[str]]:
    """Return every series that our processes export, and its labels."""
    labels = {"up": set[str]()}
    for module in DEFINED_IN:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                for name in REGISTRY._collector_to_names[metric]:
                    labels[name] = set(metric._labelnames)
    return labels | {family.name: set(family.labels) for family in FAMILIES}


def named(query: str) -> set[str]:
    return set(re.findall(r"\b(?:tollgate_\w+|up\b)", query))


def labels_of(query: str) -> set[str]:
    in_selectors = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query)
    grouped = re.findall(r"(?:by|without|on|ignoring)\s*\(([^)]*)\)", query)
    return {*in_selectors, *(label.strip() for group in grouped for label in group.split(","))}


def test_a_query_names_only_metrics_and_labels_that_exist() -> None:
    known = exported()
    for name, query in QUERIES.items():
        series = named(query)
        assert series, name
        assert series <= known.keys(), name
        allowed = OF_PROMETHEUS.union(*(known[each] for each in series))
        assert labels_of(query) <= allowed, name


def test_every_metric_is_watched_or_shown() -> None:
    watched = set().union(*(named(query) for query in QUERIES.values()))
    parts = re.compile(r"_(bucket|count|sum|created)$")
    ours = {parts.sub("", name) for name in exported()} - {"up"}
    seen = {parts.sub("", name) for name in watched}
    ours = {name.removesuffix("_total") for name in ours}
    assert ours - {name.removesuffix("_total") for name in seen} == set()


def test_labels_in_texts_exist() -> None:
    known = exported()
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= OF_PROMETHEUS.union(*(known[each] for each in named(rule["expr"])))
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                grouped = labels_of(target["expr"])
                assert legend <= grouped, panel["title"]


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    sections = re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.M)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        link = f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == link
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_a_runbook_says_what_it_means_where_to_look_and_what_to_do() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    for section in re.split(r"^### ", text, flags=re.M)[1:]:
        assert re.findall(r"^\*\*(\w+):\*\*", section, re.M) == ["Means", "Look", "Do"], section


# --- The real tools ------------------------------------------------------------------------------
@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on the PATH (it comes with Prometheus)")
    return found


def run(*command: str | Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_promtool_accepts_the_rules(promtool: str) -> None:
    assert f"{len(RULES)} rules found" in run(promtool, "check", "rules", FOLDER / "alerts.yml")


def test_every_alert_is_made_to_fire_once() -> None:
    groups = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    tried = [each for group in groups for each in group["alert_rule_test"]]
    firing = {each["alertname"] for each in tried if each.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in RULES}


def test_the_rules_fire_when_they_should(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", FOLDER / "alerts_test.yml")


def test_promtool_accepts_the_queries_of_the_dashboards(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES.values())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", file)


def test_promtool_accepts_the_configuration(promtool: str) -> None:
    run(promtool, "check", "config", "--syntax-only", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_schema_knows_every_field(name: str) -> None:
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=_NO_SDK)
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    read = models.Dashboard.from_json(DASHBOARDS[name])
    written = json.loads(encoder.JSONEncoder(sort_keys=True).encode(read))
    assert list(_lost(DASHBOARDS[name], written)) == []


_NO_SDK = "grafana-foundation-sdk is not installed (make test-deploy)"


def _lost(given: Any, kept: Any, at: str = "") -> Iterator[str]:
    """Yield where a document has something that a copy of it lost or changed."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from _lost(value, kept[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, pair in enumerate(zip(given, kept, strict=True)):
            yield from _lost(*pair, f"{at}[{number}]")
    elif given != kept:
        yield at


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert len(set(uids)) == len(uids) == 4
    for name, dashboard in DASHBOARDS.items():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids), name
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in dashboard["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(set(cells)) == len(cells), name
        assert max(x for x, _ in cells) < 24, name


# --- docker compose ------------------------------------------------------------------------------
def test_compose_starts_them_only_if_asked() -> None:
    profiles = {name: one.get("profiles") for name, one in COMPOSE["services"].items()}
    chosen = {name: given for name, given in profiles.items() if given}
    assert chosen == {
        "prometheus": ["observability"],
        "grafana": ["observability"],
        "sockets": ["socket-mode"],
    }


def test_what_they_mount_exists() -> None:
    for name in ("prometheus", "grafana"):
        for volume in COMPOSE["services"][name]["volumes"]:
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() or source in COMPOSE["volumes"], volume


def test_prometheus_asks_every_process_that_has_metrics() -> None:
    asked = {
        target
        for job in PROMETHEUS["scrape_configs"]
        for static in job.get("static_configs", [])
        for target in static["targets"]
    }
    asked |= {
        f"{name}:{found['port']}"
        for job in PROMETHEUS["scrape_configs"]
        for found in job.get("dns_sd_configs", [])
        for name in found["names"]
    }
    workers = {
        f"{name}:{one['environment']['METRICS_PORT']}"
        for name, one in COMPOSE["services"].items()
        if "METRICS_PORT" in (one.get("environment") or {})
    }
    assert workers == {"worker:9100", "celery:9100", "reconciler:9100", "sockets:9100"}
    assert asked == workers | {"web:8000", "gateway:8100"}
    for target in asked:
        service = COMPOSE["services"][target.partition(":")[0]]
        assert "http" in service["networks"]
    assert COMPOSE["services"]["prometheus"]["networks"] == ["http"]


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    folder = FOLDER / "grafana" / "provisioning"
    provider = yaml.safe_load((folder / "dashboards" / "tollgate.yml").read_text())["providers"][0]
    targets = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in targets
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
