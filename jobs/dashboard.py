"""Make a Grafana dashboard of a run's metrics: `pipemill dashboard`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pipemill.actors.monitoring.metrics import (
    BUDGET_TOKENS,
    DEAD_LETTERS,
    DEVICE_BUSY,
    ETA_SECONDS,
    JOB,
    OOM_SHRINKS,
    ROWS,
    SPLITS,
    STAGE_SECONDS,
    TOKENS,
    Metric,
)

_WIDTH, _HEIGHT = 6, 8  # of a panel; a row is 24 wide
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """A panel of one query.

    Attributes:
        query: in PromQL.
        legend: names a line by its labels; "" where there is one.
        unit: as Grafana names it.
        stacks: whether lines are stacked.
    """

    title: str
    about: str
    query: str
    legend: str = ""
    unit: str = "short"
    kind: Literal["timeseries", "stat", "bargauge"] = "timeseries"
    stacks: bool = False


def _select_job(metric: Metric, **labels: str) -> str:
    return _select(metric.exported, **labels)


def _select(name: str, **labels: str) -> str:
    pairs = [f'{JOB}=~"$job"', *(f'{label}="{value}"' for label, value in labels.items())]
    return f"{name}{{{', '.join(pairs)}}}"


def _format_rate(selected: str) -> str:
    return f"rate({selected}[$__rate_interval])"


# An actor is a worker whose device computed in the last minutes.
_ACTORS = f"count by ({JOB}) (rate({_select_job(DEVICE_BUSY)}[5m]) > 0)"
_ROWS_PER_SECOND = f"sum by ({JOB}) (rate({_select_job(ROWS)}[5m]))"
# Of each job: a counter has no series before it counts.
_NONE = f"0 * max by ({JOB}) ({_select_job(SPLITS)})"
_TOKENS_PER_SECOND = f"sum by ({JOB}) ({_format_rate(_select_job(TOKENS))})"
_STAGE_SUM = STAGE_SECONDS.series[1]

_ROWS = {
    "Are we moving?": [
        _Panel(
            title="Rows per second",
            about="Rows with an answer, and rows that became dead letters.",
            query=f"sum by ({JOB}, outcome) ({_format_rate(_select_job(ROWS))})",
            legend=f"{{{{{JOB}}}}} {{{{outcome}}}}",
        ),
        _Panel(
            title="Time left",
            about="At the pace of the last minute.",
            query=f"max by ({JOB}) ({_select_job(ETA_SECONDS)})",
            legend=f"{{{{{JOB}}}}}",
            unit="s",
            kind="stat",
        ),
        _Panel(
            title="Splits",
            about="The pieces of the input: done, left, and failed.",
            query=f"max by ({JOB}, state) ({_select_job(SPLITS)})",
            legend=f"{{{{{JOB}}}}} {{{{state}}}}",
            stacks=True,
        ),
        _Panel(
            title="Tokens per second",
            about="Padding is computed for nothing.",
            query=f"sum by ({JOB}, kind) ({_format_rate(_select_job(TOKENS))})",
            legend=f"{{{{{JOB}}}}} {{{{kind}}}}",
            stacks=True,
        ),
    ],
    "What binds us?": [
        _Panel(
            title="Device busy",
            about="The share of an actor's time in which its device computes, on average. Near "
            "100 % the device binds; far below, the stages before or after it.",
            # A split counts when it is done, also the seconds before the time that is looked at.
            query=f"clamp_max(avg by ({JOB}) ({_format_rate(_select_job(DEVICE_BUSY))}), 1)",
            legend=f"{{{{{JOB}}}}}",
            unit="percentunit",
        ),
        _Panel(
            title="Work in each stage",
            about="Seconds of work per second, over all actors: read, expand (tokenize or decode), "
            "forward (the device), regroup, write. Ray adds them up by the middles of buckets.",
            query=f"sum by (stage) ({_format_rate(_select(_STAGE_SUM))})",
            legend="{{stage}}",
            unit="s",
            stacks=True,
        ),
        _Panel(
            title="Padding",
            about="The share of the computed tokens that is padding.",
            # Where nothing is padded, there is no series of padding.
            query=f"1 - sum by ({JOB}) ({_format_rate(_select_job(TOKENS, kind='real'))})"
            f" / {_TOKENS_PER_SECOND}",
            legend=f"{{{{{JOB}}}}}",
            unit="percentunit",
        ),
        _Panel(
            title="Token budget",
            about="The most tokens in a micro-batch: measured on the first rows, and halved when "
            "memory runs out.",
            query=f"max by ({JOB}) ({_select_job(BUDGET_TOKENS)})",
            legend=f"{{{{{JOB}}}}}",
        ),
    ],
    "What failed?": [
        _Panel(
            title="Dead letters by reason",
            about="The most frequent stages and errors. pipemill status shows a message of each.",
            query=f"topk(10, sum by (reason) ({_select_job(DEAD_LETTERS)}))",
            legend="{{reason}}",
            kind="bargauge",
        ),
        _Panel(
            title="Share of rows that fail",
            about="output.max_errors ends a run of which too many rows fail.",
            query=f"sum by ({JOB}) ({_format_rate(_select_job(ROWS, outcome='dead'))})"
            f" / sum by ({JOB}) ({_format_rate(_select_job(ROWS))}) or {_NONE}",
            legend=f"{{{{{JOB}}}}}",
            unit="percentunit",
        ),
        _Panel(
            title="Micro-batches that ran out of memory",
            about="Each was computed again in halves.",
            query=(
                f"sum by ({JOB}) (increase({_select_job(OOM_SHRINKS)}[$__rate_interval]))"
                f" or {_NONE}"
            ),
            legend=f"{{{{{JOB}}}}}",
        ),
        _Panel(
            title="Failed splits",
            about="The same command again does them.",
            query=f"max by ({JOB}) ({_select_job(SPLITS, state='failed')})",
            legend=f"{{{{{JOB}}}}}",
            kind="stat",
        ),
    ],
    "What will it cost?": [
        _Panel(
            title="Actors at work",
            about="Workers whose device computed in the last five minutes.",
            query=_ACTORS,
            legend=f"{{{{{JOB}}}}}",
        ),
        _Panel(
            title="Device hours so far",
            about="Busy hours of all devices, in the time that is shown.",
            query=f"sum by ({JOB}) (increase({_select_job(DEVICE_BUSY)}[$__range])) / 3600",
            legend=f"{{{{{JOB}}}}}",
            unit="h",
            kind="stat",
        ),
        _Panel(
            title="Cost until the end",
            about="Time left, times actors, times the price above.",
            query=f"max by ({JOB}) ({_select_job(ETA_SECONDS)}) / 3600 * {_ACTORS} * $price",
            legend=f"{{{{{JOB}}}}}",
            kind="stat",
        ),
        _Panel(
            title="Cost of a million rows",
            about="At the pace of the last five minutes.",
            query=f"1e6 / ({_ROWS_PER_SECOND} * 3600) * {_ACTORS} * $price",
            legend=f"{{{{{JOB}}}}}",
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return a dashboard as Grafana imports it, over the metrics in Prometheus.

    Returns:
        The JSON model: four rows of four panels, and variables for the data source, the jobs and
        the price of an actor for an hour.
    """
    return {
        "uid": "pipemill",
        "title": "pipemill",
        "description": "Runs of pipemill on Ray: are they moving, what binds them, what failed, "
        "what will they cost.",
        "tags": ["pipemill", "ray"],
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _list_variables()},
        "panels": list(_make_panels()),
    }


def _list_variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "job",
            "label": "Job",
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values({SPLITS.exported}, {JOB})",
            "refresh": 2,  # when the time range changes
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
        {
            "name": "price",
            "label": "Price of an actor per hour",
            "type": "textbox",
            "query": "1",
            "current": {"text": "1", "value": "1"},
        },
    ]


def _make_panels() -> Iterator[dict[str, Any]]:
    number = 0
    for y, (title, panels) in enumerate(_ROWS.items()):
        top = y * (_HEIGHT + 1)
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
            "panels": [],
        }
        for x, panel in enumerate(panels):
            number += 1
            place = {"x": x * _WIDTH, "y": top + 1, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": number, "gridPos": place, **_describe(panel)}


def _describe(panel: _Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 2,
            "fillOpacity": 30 if panel.stacks else 10,
            "stacking": {"mode": "normal" if panel.stacks else "none", "group": "A"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options["reduceOptions"] = {"calcs": ["lastNotNull"], "values": False, "fields": ""}
    if panel.kind == "bargauge":
        options |= {"orientation": "horizontal", "displayMode": "basic"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "expr": panel.query,
                "legendFormat": panel.legend or "__auto",
                "range": panel.kind == "timeseries",
                "instant": panel.kind != "timeseries",
            }
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }
