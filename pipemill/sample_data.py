"""Rows to try a task on."""

from pathlib import Path


def sample() -> str:
    """Name a Parquet file with 200 short and long texts, which comes with pipemill.

    They are reports from a town that does not exist, free to use as pipemill is. The columns:
    `id`, `date`, `author`, `topic` (one of six), `text` (49 to 4,234 characters), and a `question`
    about the text with its `answer`, which is in the text.

    Returns:
        The file's path.
    """
    return str(Path(__file__).parent / "sample.parquet")
