"""A comparison as a picture: rows/s of each contender, steady and over whole runs."""

from __future__ import annotations

from pathlib import Path


def draw(
    work: str, rows: int, whole: dict[str, float], steady: dict[str, float], path: Path
) -> None:
    """whole: seconds of a run; steady: rows/s. One bar each per contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(whole)
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.55 * len(names)), layout="constrained")
    places = range(len(names))
    bars = {
        "steady": [steady[name] for name in names],
        "whole run": [rows / whole[name] for name in names],
    }
    for offset, (label, values) in zip((-0.2, 0.2), bars.items(), strict=True):
        drawn = axes.barh([place + offset for place in places], values, 0.38, label=label)
        axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("rows/s")
    axes.set_title(work)
    axes.margins(x=0.1)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
