"""Draw what `pipemill tune` measured."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipemill.errors import ConfigError

from ..output.text_table import format_number
from .benchmark import Measurement, find_best

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch


_COLOURS = {"transformers": "#9aa0a6", "sorted": "#5b8def", "packed": "#1a9850"}
_WAYS = {
    "transformers": "transformers.pipeline",
    "sorted": "pipemill, padded",
    "packed": "pipemill, packed",
}
_OTHER_ENGINE = "#e8833a"
_HATCH = "////"


def check_plot(path: str | None) -> str | None:
    """Return a message if matplotlib is missing.

    Raises:
        ConfigError: The plot was asked for, and can't be written to `path`.
    """
    if find_spec("matplotlib") is None:
        message = "no plot without matplotlib: pip install 'pipemill[plot]'"
        if path is not None:
            raise ConfigError(message)
        return message
    if path is None:
        return None
    from matplotlib.figure import Figure

    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"can't write the plot {path}: no folder has that name")
    if Path(path).is_dir():
        raise ConfigError(f"can't write the plot {path}: it is a folder; name a file in it")
    place = Path(path) if Path(path).exists() else Path(path).absolute().parent
    if not os.access(place, os.W_OK):
        raise ConfigError(f"can't write the plot {path}: {place} can't be written to")
    formats = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ConfigError(
            f"can't write the plot {path}: its name must end in one of .png, .svg, "
            f".pdf or another format of matplotlib ({', '.join(sorted(formats))})"
        )
    return None


def draw_plot(settings: list[Measurement], path: str, title: str) -> str:
    """Draw rows per second and peak memory of each setting as bars, and return the file's path.

    The setting to use has a thick edge, and estimates are hatched. The file's suffix decides its
    format.

    Raises:
        ConfigError: The file can't be written.
    """
    from matplotlib.figure import Figure

    drawn = [setting for setting in settings if setting.rows_per_second is not None]
    figure = Figure(figsize=(9, 1.9 + 0.32 * max(len(drawn), 1)), layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, horizontalalignment="left")
    speed, memory = figure.subplots(1, 2, sharey=True)
    best = find_best(settings)
    _draw_bars(speed, drawn, [setting.rows_per_second or 0.0 for setting in drawn], best)
    speed.set_yticks(range(len(drawn)), [setting.name for setting in drawn])
    for label, setting in zip(speed.get_yticklabels(), drawn, strict=True):
        label.set_fontweight("bold" if setting is best else "normal")
    speed.invert_yaxis()
    speed.set_xlabel("rows/s")
    _draw_bars(memory, drawn, [(setting.memory_bytes or 0) / 2**20 for setting in drawn], best)
    memory.set_xlabel("peak memory, MiB")
    keys = _explain(drawn, best)
    figure.legend(
        handles=keys, loc="outside lower left", ncols=min(len(keys), 5), fontsize=8, frameon=False
    )
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't write the plot {path}: {error}") from error
    return str(Path(path))


def _draw_bars(
    axes: Axes, drawn: list[Measurement], values: list[float], best: Measurement | None
) -> None:
    bars = axes.barh(
        range(len(drawn)), values, color=[_COLOURS.get(s.how, _OTHER_ENGINE) for s in drawn]
    )
    for bar, setting in zip(bars, drawn, strict=True):
        if setting.measured < 1:  # it was not run to its end
            bar.set(hatch=_HATCH, edgecolor="white", linewidth=0)
        if setting is best:
            bar.set(edgecolor="black", linewidth=2)
    estimates = ["≈" if setting.measured < 1 else "" for setting in drawn]
    labels = [
        f"{sign}{format_number(value)}" for sign, value in zip(estimates, values, strict=True)
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)


def _explain(drawn: list[Measurement], best: Measurement | None) -> list[Patch]:
    """Return the entries of the legend: what is in the picture."""
    from matplotlib.patches import Patch

    ways = dict.fromkeys(_WAYS.get(setting.how, "another engine") for setting in drawn)
    colours = {label: _COLOURS[how] for how, label in _WAYS.items()}
    keys = [Patch(facecolor=colours.get(way, _OTHER_ENGINE), label=way) for way in ways]
    if any(setting.measured < 1 for setting in drawn):
        keys.append(Patch(facecolor="grey", edgecolor="white", hatch=_HATCH, label="an estimate"))
    if best is not None:
        keys.append(Patch(facecolor="white", edgecolor="black", linewidth=2, label="recommended"))
    return keys
