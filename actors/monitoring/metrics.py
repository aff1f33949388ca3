"""The metrics of a run: their names, types and labels, for workers, the driver and dashboards.

Prometheus sees them as Ray exports them: with "ray_" before the name, and beside their labels some
of Ray's, such as the worker's id. Their label `job` becomes `exported_job` there: with Prometheus'
defaults, and in the configuration that Ray writes, `job` is the name of the scrape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_PREFIX = "ray_"
# The label `job` in Prometheus.
JOB = "exported_job"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric in base units.

    Attributes:
        name: as pipemill records it.
        kind: "counter", "gauge" or "histogram".
        help: what it counts or measures.
        labels: their names; few values each.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ("job",)
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """Return the name at Ray's endpoint, in Prometheus and in a dashboard."""
        return f"{_PREFIX}{self.name}"

    @property
    def series(self) -> tuple[str, ...]:
        """Return the exported names that a query may use."""
        if self.kind != "histogram":
            return (self.exported,)
        return tuple(f"{self.exported}_{part}" for part in ("bucket", "sum", "count"))


ROWS = Metric(
    name="pipemill_rows_total",
    kind="counter",
    help="Input rows that were processed, by outcome: done or dead.",
    labels=("job", "task", "outcome"),
)
TOKENS = Metric(
    name="pipemill_tokens_total",
    kind="counter",
    help="Tokens that were computed, by kind: real or padding.",
    labels=("job", "kind"),
)
CHUNKS = Metric(
    name="pipemill_chunks_total",
    kind="counter",
    help="Chunks of rows that went to the model.",
)
DEVICE_BUSY = Metric(
    name="pipemill_device_busy_seconds_total",
    kind="counter",
    help="Seconds in which an actor's device computed a forward pass.",
)
STAGE_SECONDS = Metric(
    name="pipemill_stage_seconds",
    kind="histogram",
    help="Seconds of a split in each stage: read, expand, forward, regroup or write.",
    labels=("job", "stage"),
    # Ray adds up a histogram by the middles of its buckets: close ones keep the sum near.
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)
DEAD_LETTERS = Metric(
    name="pipemill_dead_letters_total",
    kind="counter",
    help="Rows that failed, by the stage and the class of the error.",
    labels=("job", "reason"),
)
OOM_SHRINKS = Metric(
    name="pipemill_oom_shrinks_total",
    kind="counter",
    help="Micro-batches that were halved because memory ran out.",
)
BUDGET_TOKENS = Metric(
    name="pipemill_budget_tokens",
    kind="gauge",
    help="The most tokens in a micro-batch, once measured.",
)
SPLITS = Metric(
    name="pipemill_splits",
    kind="gauge",
    help="Splits of the run, by state: done, left or failed.",
    labels=("job", "state"),
)
ETA_SECONDS = Metric(
    name="pipemill_eta_seconds",
    kind="gauge",
    help="Seconds until the run is expected to end.",
)

METRICS = (
    ROWS,
    TOKENS,
    CHUNKS,
    DEVICE_BUSY,
    STAGE_SECONDS,
    DEAD_LETTERS,
    OOM_SHRINKS,
    BUDGET_TOKENS,
    SPLITS,
    ETA_SECONDS,
)
