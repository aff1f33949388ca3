"""What the metrics endpoints of the Ray that this process is connected to show."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

import ray
from prometheus_client.parser import text_string_to_metric_families


class Series:
    """The values of one moment, added up over workers."""

    def __init__(self, text: str) -> None:
        # Ray's own are thousands of lines, which take a while to parse.
        lines = [line for line in text.splitlines() if "ray_pipemill_" in line]
        families = text_string_to_metric_families("\n".join([*lines, ""]))
        self.samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of the values with these labels; None if there are none."""
        values = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None


def wait_for_series(arrived: Callable[[Series], bool], seconds: float = 40) -> Series:
    """Return what the endpoints show once it has arrived; workers report every ten seconds."""
    until = time.monotonic() + seconds
    while True:
        series = Series("".join(map(_read, ray.nodes())))
        if arrived(series) or time.monotonic() > until:
            return series
        time.sleep(0.5)


def _read(node: dict) -> str:
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()
