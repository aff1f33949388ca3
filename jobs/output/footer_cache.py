"""Keep the footers of parts in one table: reading those of 100,000 parts takes half a minute.

The table says for each part how it looked when its footer was read. A part that looks different
now is read again, so a table that is old, or lost, only costs time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.output.layout import FOOTERS
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.output.state_table import StateTable
from pipemill.actors.storage.store import FileStamp, Store

# With fewer parts it costs more than it saves.
LEAST_PARTS = 1000
_ROWS, _BYTES = 2**14, 2**22  # that are parsed at once
_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("size", pa.int64()),
        ("written", pa.string()),
        ("footer", pa.string()),
    ]
)


class FooterCache:
    """The table of footers in an output."""

    def __init__(self, store: Store) -> None:
        self._table = StateTable(store, FOOTERS)

    def read(self, stamps: Mapping[str, FileStamp]) -> dict[str, PartFooter]:
        """Return the footers of the parts that look as they did. stamps: how parts look now."""
        try:
            table = pq.read_table(io.BytesIO(self._table.read()))
            known: dict[str, PartFooter] = {}
            some = max(min(_ROWS, _BYTES * len(table) // max(table.nbytes, 1)), 1)
            for batch in table.to_batches(max_chunksize=some):
                *looks, footers = (batch[name].to_pylist() for name in _SCHEMA.names)
                # One text for many: parsing 100,000 of them alone takes twice as long.
                notes = json.loads(f"[{','.join(footers)}]")
                known |= {
                    part: PartFooter.from_json(one)
                    for part, *look, one in zip(*looks, notes, strict=True)
                    if part in stamps and look == [stamps[part].size, stamps[part].written]
                }
            return known
        except Exception:  # it is not there, or damaged: it only saves time
            return {}

    def write(
        self, stamps: Mapping[str, FileStamp], footers: Iterable[tuple[str, PartFooter]]
    ) -> None:
        """Keep the footers of these parts, if the output can be written to."""
        rows = [
            (part, stamps[part].size, stamps[part].written, json.dumps(footer.to_json()))
            for part, footer in footers
        ]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(list(zip(*rows, strict=True)), schema=_SCHEMA), file)
        with suppress(Exception):
            self._table.write(file.getvalue())
