"""Draw what `pipemill tune` measured."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    from .benchmark import Measurement


_COLOURS = {"transformers": "#9aa0a6", "sorted": "#5b8def", "packed": "#1a9850"}


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
    formats = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ConfigError(
            f"can't write the plot {path}: its name must end in one of .png, .svg, "
            f".pdf or another format of matplotlib ({', '.join(sorted(formats))})"
        )
    return None


def draw_plot(settings: list[Measurement], path: str) -> str:
    """Draw rows per second and peak memory of each setting as bars, and return the file's path.

    The file's suffix decides its format.

    Raises:
        ConfigError: The file can't be written.
    """
    from matplotlib.figure import Figure

    drawn = [setting for setting in settings if setting.rows_per_second is not None]
    figure = Figure(figsize=(9, 1.2 + 0.32 * max(len(drawn), 1)), layout="constrained")
    speed, memory = figure.subplots(1, 2, sharey=True)
    places = range(len(drawn))
    colours = [_COLOURS[setting.how] for setting in drawn]
    rates = [setting.rows_per_second or 0.0 for setting in drawn]
    bars = speed.barh(places, rates, color=colours)
    # A setting that was not run to its end is an estimate.
    labels = [
        f"{'≈' if setting.measured < 1 else ''}{rate:.3g}"
        for setting, rate in zip(drawn, rates, strict=True)
    ]
    speed.bar_label(bars, labels, padding=2, fontsize=8)
    speed.set_yticks(list(places), [setting.name for setting in drawn])
    speed.invert_yaxis()
    speed.set_xlabel("rows/s")
    speed.margins(x=0.15)
    memory.barh(places, [(s.memory_bytes or 0) / 2**20 for s in drawn], color=colours)
    memory.set_xlabel("peak memory, MiB")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't write the plot {path}: {error}") from error
    return str(Path(path))
