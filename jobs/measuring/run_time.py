"""Estimate how long a run takes, its start included, from what a trial measured."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
from pipemill.actors.monitoring.ray_connection import find_connected_ray

from ..config.job import ActorsSection
from ..execution.gpus import find_gpus
from ..execution.placement import SINGLE, resolve_placement
from ..execution.pool_size import count_actors, find_ray_nodes
from ..execution.ray_address import joins_ray
from ..execution.single_process import IMPORTS_S, RAY_S, WATCHED_S, ray_is_sooner
from .benchmark import Measurement

if TYPE_CHECKING:
    from .trial import Trial

# Python, the command line and planning, seconds.
_COMMAND_S = 1.2
# What Ray and its actors take to start and to end in a whole run, beside RAY_S.
_MORE_RAY_S = 3.0
# What remains of Ray's time if a Ray is running already.
_JOINED_SHARE = 0.3
# Imports that take longer wait for a cold disk, from which the processes of the run don't read.
_MOST_IMPORTS_S = 3 * IMPORTS_S
# By how much a start, and a measured speed, may differ in the run.
_START_RANGE, _SPEED_RANGE = 0.35, 0.12


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """How long a run takes, in seconds.

    Attributes:
        placement: Where it runs: "single" is one process without Ray.
        actors: How many compute.
        start: What comes before the first row and after the last one.
        expected: The whole run, its start included.
        least, most: An interval for it.
        load: What loading the model takes.
    """

    placement: str
    actors: int
    start: float
    expected: float
    least: float
    most: float
    load: float = 0.0

    def followed_by(self, later: RunTime, share: float) -> RunTime:
        """Return the time of a run whose workers also compute another task.

        Args:
            later: the time of the other task's own run.
            share: of the rows, that the other task computes.
        """
        return replace(
            self,
            start=self.start + later.load,
            expected=self.expected + later.load + share * (later.expected - later.start),
            least=self.least + share * max(later.least - later.start, 0.0),
            most=self.most + 2 * later.load + share * max(later.most - later.start, 0.0),
            load=self.load + later.load,
        )


def estimate_run_time(trial: Trial, best: Measurement, actors: int | None = None) -> RunTime:
    """Estimate the run of a trial's job, here or with so many actors.

    Args:
        best: the setting that the run uses.
        actors: None for as many as there would be here.
    """
    section, splits = trial.prepared.job.actors, trial.prepared.plan.splits
    placement = trial.prepared.placement
    if actors is None:
        placement = resolve_placement(placement, section, splits)
    elif placement == "local":
        placement = "fused"
    rows = trial.sampled.whole
    assert best.seconds is not None
    # In an actor of a GPU the host works on one split while the device computes another.
    host = trial.host_seconds
    device = max(best.seconds - host, 0.0)
    overlaps = bool(section.gpus_each)
    scale = rows / trial.rows.num_rows
    least = max(host, device) * scale
    work = least if overlaps else best.seconds * scale
    spread = _SPEED_RANGE + 2 * _estimate_error(trial)

    # How busy this machine is shows in what imports take.
    imports = min(trial.imports_seconds, _MOST_IMPORTS_S)
    slow = imports / IMPORTS_S
    fit = imports + trial.plan_seconds
    load = fit + trial.load_seconds
    if trial.prepared.asks_sample and placement != "local":
        load *= 2  # another process computes the sample first
    start, crowding = _COMMAND_S * slow, 1.0
    if placement in ("local", SINGLE):
        count, start = 1, start + load
        if placement == SINGLE and _moves_to_ray(work, load, len(splits), section):
            # The first process computes for a while, and then Ray's actors do.
            work, least = max(work - WATCHED_S, 0.0), max(least - WATCHED_S, 0.0)
            count, placement = count_local_actors(section, len(splits)), "fused"
            crowding = _measure_crowding(count, section)
            start += WATCHED_S + ((RAY_S + _MORE_RAY_S) * slow + load) * crowding
    else:
        count = actors or count_local_actors(section, len(splits))
        if actors is None:
            crowding = _measure_crowding(count, section)
        ray_s = (RAY_S + _MORE_RAY_S) * (_JOINED_SHARE if joins_ray(section.cluster) else 1)
        # Another process checks first that the model fits the task.
        start += fit + (ray_s * slow + load) * crowding
    # The last splits may leave actors without work.
    waves = math.ceil(len(splits) / count) * count / max(len(splits), 1)
    work, least = work * waves * crowding / count, least / count
    return RunTime(
        placement=placement,
        actors=count,
        start=start,
        expected=start + work,
        least=start * (1 - _START_RANGE) + least * (1 - spread),
        most=start * (1 + _START_RANGE) + work * (1 + spread),
        load=trial.load_seconds,
    )


def count_local_actors(actors: ActorsSection, splits: int) -> int:
    """Return how many actors a run has on the Ray that it is connected to, or on this machine."""
    if find_connected_ray() is not None:
        nodes = find_ray_nodes()
    else:
        nodes = [{"CPU": float(os.cpu_count() or 1), "GPU": float(len(find_gpus()))}]
    fit = sum(count_actors(node, actors) for node in nodes)
    wanted = fit if actors.max == "auto" else min(fit, actors.max)
    return max(min(wanted, splits), 1)


def _measure_crowding(count: int, actors: ActorsSection) -> float:
    """Return how much slower so many actors are here than the one that was measured.

    On CPUs they share the cores with what else runs on this machine.
    """
    if actors.gpus_each:
        return 1.0
    cores, threads = os.cpu_count() or 1, max(int(actors.num_cpus), 1)
    others = max(psutil.getloadavg()[0] - threads, 0.0)  # without this process
    return max((count * threads + others) / cores, 1) / max((threads + others) / cores, 1)


def _moves_to_ray(work: float, load: float, splits: int, actors: ActorsSection) -> bool:
    return work > WATCHED_S and ray_is_sooner(work - WATCHED_S, load, splits - 1, actors)


def _estimate_error(trial: Trial) -> float:
    """Return the standard error of the mean work of a row, as a share of it."""
    tokens = trial.row_tokens
    if trial.sampled.whole <= len(tokens) or not tokens.mean():
        return 0.0
    return float(tokens.std() / tokens.mean() / math.sqrt(len(tokens)))
