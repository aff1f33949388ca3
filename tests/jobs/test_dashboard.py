"""The dashboard: what Grafana imports, over metrics that are there."""

from __future__ import annotations

import json
import re

import pytest
from pipemill.actors.monitoring.metrics import METRICS
from pipemill.jobs.cli.app import main
from pipemill.jobs.dashboard import dashboard


@pytest.fixture(scope="module")
def panels():
    return dashboard()["panels"]


def test_it_has_four_rows_of_four_panels_that_do_not_overlap(panels):
    titles = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert titles == ["Are we moving?", "What binds us?", "What failed?", "What will it cost?"]
    assert sum(panel["type"] != "row" for panel in panels) == 16
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_metric_and_label_is_recorded_and_every_metric_is_shown(panels):
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    shown = {name for query in queries for name in re.findall(r"\w*pipemill_\w+", query)}
    series = {name: metric for metric in METRICS for name in metric.series}
    assert shown <= set(series)
    # What counts chunks matters to a query of your own.
    assert {series[name].name for name in shown} == {
        metric.name for metric in METRICS if metric.name != "pipemill_chunks_total"
    }
    for query in queries:
        for name, selector in re.findall(r"(\w*pipemill_\w+)\{(.*?)\}", query):
            labels = set(re.findall(r"(\w+)=", selector))
            assert labels <= {*series[name].labels, "exported_job"}, query
            assert "exported_job" in labels


def test_grafanas_own_model_knows_every_key():
    library = pytest.importorskip("grafana_foundation_sdk", reason="make install")
    assert library
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    made = json.loads(json.dumps(dashboard()))
    # What it does not know it drops.
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(made)))
    assert find_lost(made, read) == []
    made["panels"][1]["targets"][0]["expression"] = "up"
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(made)))
    assert find_lost(made, read) == ["panels/1/targets/0/expression"]


def find_lost(made, read, path=""):
    """Return the paths of what is not the same in `read`, which may hold more."""
    pairs = {}
    if isinstance(made, dict) and isinstance(read, dict):
        pairs = {key: (value, read.get(key)) for key, value in made.items()}
    elif isinstance(made, list) and isinstance(read, list) and len(made) == len(read):
        pairs = dict(enumerate(zip(made, read, strict=True)))
    if pairs:
        return [lost for key, two in pairs.items() for lost in find_lost(*two, f"{path}/{key}")]
    return [] if made == read else [path.removeprefix("/")]


def test_the_verb_writes_it_into_a_file_or_to_stdout(tmp_path, capsys):
    file = tmp_path / "pipemill.json"
    assert main(["dashboard", "--out", str(file)]) == 0
    assert json.loads(file.read_text()) == dashboard()
    assert capsys.readouterr().out == ""
    assert main(["dashboard"]) == 0
    assert json.loads(capsys.readouterr().out) == dashboard()
    assert main(["dashboard", "--out", str(tmp_path / "no/such.json")]) == 2
    assert "no/such.json: No such file or directory" in capsys.readouterr().err
