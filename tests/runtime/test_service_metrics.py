"""Metrics as Prometheus reads them, and what dashboard and alerts ask of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from story import a_face, a_result, a_run, a_story

from edge_fer.control import State
from edge_fer.service import live as live_module
from edge_fer.service.live import Live
from edge_fer.service.metrics import BOUNDS_S, Histogram, Metrics
from edge_fer.sinks.delivery import Delivery

MONITORING = Path(__file__).parents[2] / "firmware_configs" / "monitoring"
PROMISED = {
    "frames",
    "frames_dropped",
    "faces_detected",
    "expressions",
    "stage_duration_seconds",
    "tracks_active",
    "last_frame_timestamp_seconds",
    "camera_reconnects",
    "mqtt_connected",
    "cpu_temperature_celsius",
    "throttled",
    "build_info",
}
"""Names that others rely on; prometheus-client leaves the _total of counters out."""


def families(monkeypatch: pytest.MonkeyPatch, board: dict[str, Any] | None = None, **web: Any) -> dict[str, Metric]:
    """All metrics after the story, with every part that can be there."""
    known = {"temperature_c": 61.4, "throttled": ["under-voltage", "throttled since boot"], "rss_mb": 80.0, "load": 0.5}
    monkeypatch.setattr(live_module, "board", lambda: known if board is None else board)
    run = a_run()
    live, metrics = Live(run, False, lambda act, *arguments: None), Metrics()
    for result in a_story():
        events = run.to_events(result)
        metrics.see(result, events)
        live.see(result, events)
    run.control.state = State.RECOGNIZING
    run.control.cameras["clip"] = Counter()
    run.control.cameras["clip"].update(late=3, damaged=1, lost=2)
    for name in ("mqtt://broker", "http://hook/..."):
        delivery: Delivery[int] = Delivery(name, lambda batch: None)
        delivery.put(1)
        delivery.close()
        run.control.deliveries[name] = delivery
    watching = {"events": 2, "video": 1, "left_out": 5, "requests": {200: 7, 404: 1}, **web}
    text = metrics.render({**live.state(), "web": watching, "states": list(State)})
    assert text.endswith("\n")
    return {one.name.removeprefix("edge_fer_"): one for one in text_string_to_metric_families(text)}


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(one.labels.values()): one.value for one in metric.samples}


def test_the_promised_names_are_there_with_help(monkeypatch: pytest.MonkeyPatch) -> None:
    found = families(monkeypatch)
    assert found.keys() >= PROMISED
    assert all(one.documentation and one.type in ("counter", "gauge", "histogram") for one in found.values())
    assert not any("track" in one.labels for metric in found.values() for one in metric.samples)


def test_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    found = families(monkeypatch)
    assert values(found["frames"]) == {("clip",): 4}
    assert values(found["frames_dropped"]) == {("clip", "late"): 3, ("clip", "damaged"): 1}
    assert values(found["camera_reconnects"]) == {("clip",): 2}
    assert values(found["faces_detected"]) == {(): 2}
    assert values(found["tracks_active"]) == {(): 1}
    assert values(found["expressions"]) == {("fear",): 1, ("happiness",): 1}
    assert values(found["mqtt_connected"]) == {(): 1}
    assert values(found["sink_messages"])["mqtt://broker", "sent"] == 1
    assert values(found["throttled"]) == {
        ("under-voltage",): 1,
        ("frequency capped",): 0,
        ("throttled",): 0,
        ("soft temperature limit",): 0,
    }
    assert values(found["cpu_temperature_celsius"]) == {(): 61.4}
    assert sum(values(found["state"]).values()) == values(found["state"])["recognizing",] == 1
    assert values(found["http_requests"]) == {("200",): 7, ("404",): 1}
    stages = [one for one in found["stage_duration_seconds"].samples if one.labels.get("stage") == "detect"]
    assert [one.value for one in stages if one.labels.get("le") in ("0.01", "0.025", "+Inf")] == [0, 4, 4]
    assert next(one.value for one in stages if one.name.endswith("_sum")) == pytest.approx(
        0.020 + 0.021 + 0.022 + 0.023
    )


def test_what_a_board_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = families(monkeypatch, {"temperature_c": None, "throttled": None, "rss_mb": 1.0, "load": 0.0})
    assert not {"cpu_temperature_celsius", "throttled"} & found.keys()


def test_an_expression_is_counted_when_it_begins() -> None:
    run, metrics = a_run(), Metrics()
    for seq, expression in enumerate(["happiness", "happiness", "fear", "fear", "happiness"]):
        result = a_result(seq, a_face(1, expression, "update" if seq else "start"))  # type: ignore[arg-type]
        metrics.see(result, [{"phase": "update" if seq else "start", "track": 1, "expression": expression}])
    assert metrics._expressions == {"happiness": 2, "fear": 1}
    assert run.control.frames == 0


@given(st.lists(st.floats(0, 10)))
def test_buckets_hold_all_that_is_below_their_bound(durations_s: list[float]) -> None:
    histogram = Histogram()
    for duration_s in durations_s:
        histogram.observe(duration_s)
    *buckets, total, count = histogram.samples({})
    assert [value for _, _, value in buckets] == [
        sum(one <= bound for one in durations_s) for bound in (*BOUNDS_S, float("inf"))
    ]
    assert total[2] == pytest.approx(sum(durations_s))
    assert count[2] == len(durations_s)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_name_of_a_camera_can_be_read_again(name: str) -> None:
    metrics = Metrics()
    metrics.see(a_result(0, stream=name), [])
    live = Live(a_run(), False, lambda act, *arguments: None)
    web = {"events": 0, "video": 0, "left_out": 0, "requests": {}}
    text = metrics.render({**live.state(), "web": web, "states": list(State)})
    found = {one.name: one for one in text_string_to_metric_families(text)}
    assert values(found["edge_fer_frames"]) == {(name,): 1}


# What asks for them


def queries() -> list[tuple[str, str]]:
    """Every query of the dashboard and of the alerts, with where it stands."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    found = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [(one["name"], one["query"]["query"]) for one in dashboard["templating"]["list"] if one["type"] == "query"]
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text(encoding="utf-8"))
    return found + [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("where", "query"), queries())
def test_every_query_asks_for_metrics_and_labels_that_are_there(
    where: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {}
    for metric in families(monkeypatch).values():
        for one in metric.samples:
            samples.setdefault(one.name, {}).update(
                {name: {*samples.get(one.name, {}).get(name, ()), text} for name, text in one.labels.items()}
            )
    asked = re.findall(r"(edge_fer_\w+)(?:\{([^}]*)\})?", query)
    assert asked or query.startswith("up"), where
    for name, matchers in asked:
        assert name in samples, (where, name)
        for label, operator, text in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in samples[name] or label in ("instance", "job"), (where, label)
            if operator == "=" and "$" not in text:
                assert text in samples[name][label], (where, text)
    for by in re.findall(r"\bby \(([^)]*)\)", query):
        labels = {label for name, _ in asked for label in samples[name]} | {"instance", "job"}
        assert {one.strip() for one in by.split(",")} <= labels, where


def test_alerts_say_what_to_do() -> None:
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert all(text.endswith((".", "?")) for text in rule["annotations"].values())


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    cells = [
        (x, y)
        for one in panels
        for x in range(one["gridPos"]["x"], one["gridPos"]["x"] + one["gridPos"]["w"])
        for y in range(one["gridPos"]["y"], one["gridPos"]["y"] + one["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert all(one["datasource"]["uid"] == "${datasource}" for one in panels if one["type"] != "row")
