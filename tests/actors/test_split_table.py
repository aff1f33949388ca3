import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors import split_table
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.split import Split
from pipemill.actors.split_table import SplitTable
from pipemill.actors.storage.input_file import InputFile

# The number of a file, the rows of a split of it, and how many files it bundles.
PIECES = st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 9), st.integers(0, 3)))


def make_splits(pieces):
    """Return a table of splits, and the list of the same splits."""
    files = [InputFile(f"s3://b/{i}.parquet", 10 * i, f"v{i}") for i in range(4)]
    table, splits = SplitTable(), []
    for start, (place, rows, bundled) in enumerate(pieces):
        file, bundle = files[place], tuple(files[:bundled])
        table.append(SplitRange(file, start, start + 1, rows, bundle))
        own = (file.path, file.size, file.version, start, start + 1, rows, bundle)
        splits.append(Split(len(splits), *own))
    return table, splits


@settings(deadline=None)
@given(PIECES, st.slices(9), st.integers(1, 3))
def test_it_is_the_list_of_its_splits(pieces, part, each):
    table, splits = make_splits(pieces)
    assert list(table) == splits
    assert (len(table), bool(table)) == (len(splits), bool(splits))
    assert [table[place] for place in range(-len(splits), len(splits))] == splits * 2
    assert list(table[part]) == splits[part]
    chosen, others = table[part].divide(lambda split: split.number % each == 0)
    assert list(chosen) == [split for split in splits[part] if split.number % each == 0]
    assert sorted([*chosen, *others], key=lambda split: split.number) == sorted(
        splits[part], key=lambda split: split.number
    )
    assert list(chosen[::2]) == list(chosen)[::2]
    listed = dict.fromkeys(file for split in splits for file in split.files())
    assert list(dict.fromkeys(table.files())) == list(listed)


@settings(deadline=None)
@given(PIECES, st.integers(1, 9))
def test_it_survives_as_arrow_tables(pieces, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_table, "_ROWS", rows)
        table, splits = make_splits(pieces)
        tables = list(table.to_arrow())
    assert [len(one) for one in tables[:-1]] == [rows] * (len(tables) - 1)
    again = SplitTable.from_arrow(tables)
    assert (list(again), again == table) == (splits, True)
    again.append(SplitRange(InputFile("new", 1, "1"), 0, 5, 5))
    assert (again[-1].path, again[-1].number, again == table) == ("new", len(splits), False)


def test_splits_of_a_file_share_it():
    table, _ = make_splits([(0, 1, 0)] * 5 + [(1, 1, 0)] * 5)
    assert len(list(table.files())) == 2
