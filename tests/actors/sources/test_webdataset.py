"""WebDataset shards: a row per key, whatever the tar holds, and never a row fewer."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import re
import subprocess
import tarfile

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.parsing.tar_samples import _Walk, read_samples, split_name
from pipemill.actors.sources.schemas.media_columns import make_files_column, merge_columns
from pipemill.actors.sources.streams import kept_streams
from pipemill.actors.sources.streams.kept_streams import Place
from pipemill.actors.storage import backoff
from pipemill.actors.task import Column
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.columns import list_kept_columns
from pipemill.pipelines.task_columns import resolve_columns

import pipemill
from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows, split_of

FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]


def tar(members, format=tarfile.PAX_FORMAT) -> bytes:
    """members: (name, bytes), or a TarInfo for what is no file."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as made:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            if not isinstance(member, tarfile.TarInfo):
                info.size = len(member[1])
                made.addfile(info, io.BytesIO(member[1]))
            else:
                made.addfile(info)
    return sink.getvalue()


def numbered(count, first=0):
    """Samples of a jpg of `i` bytes, a caption and a class."""
    for i in range(first, first + count):
        yield f"{i:04}.jpg", bytes([i % 256]) * i
        yield f"{i:04}.txt", f"é {i}".encode()
        yield f"{i:04}.cls", str(i).encode()


def expected(count, first=0):
    return [
        {"__key__": f"{i:04}", "cls": str(i), "jpg": bytes([i % 256]) * i, "txt": f"é {i}"}
        for i in range(first, first + count)
    ]


def test_names_are_parted_at_the_first_dot_of_the_last_part():
    assert split_name("a/b.c/cat.seg.PNG") == ("a/b.c/cat", "seg.png")
    assert split_name("cat.jpg") == ("cat", "jpg")
    assert split_name("/etc/passwd.txt") == ("/etc/passwd", "txt")
    for odd in ("cat", "cat.", ".cat", "a/._cat.jpg", "a.b/cat", "", "__meta.x__"):
        assert split_name(odd) is None


@FOLDER
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=3).filter(sum),
    size=st.none() | st.integers(1, 20),
    limit=st.none() | st.integers(1, 60),
    format=st.sampled_from(FORMATS),
    suffix=st.sampled_from(["tar", "tar.gz", "tgz", "tar.zst", "tar.xz"]),
)
def test_every_sample_is_a_row_once_in_order(tmp_path, counts, size, limit, format, suffix):
    for old in tmp_path.glob("*"):
        old.unlink()
    packs = {"tar": bytes, "tar.zst": zstandard.compress, "tar.xz": lzma.compress}
    pack = packs.get(suffix, gzip.compress)
    first = 0
    for number, count in enumerate(counts):
        (tmp_path / f"{number}.{suffix}").write_bytes(pack(tar(numbered(count, first), format)))
        first += count
    made = Plan.from_bytes(plan(tmp_path, rows_per_part=size, limit=limit).to_bytes())
    batches = read(made)
    assert rows(batches) == expected(min(first, limit or first))
    assert not any(batch.failures for batch in batches)
    if size:
        assert all(1 <= batch.rows.num_rows <= size for batch in batches)


def test_large_shards_are_cut_by_bytes_too(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tar(numbered(200)))
    assert len(plan(tmp_path).splits) == 1
    monkeypatch.setattr("pipemill.actors.sources.webdataset.LARGE_FILE", 1000)
    monkeypatch.setattr("pipemill.actors.sources.webdataset.MOST_BYTES", 20_000)
    made = plan(tmp_path)
    assert len(made.splits) > 10
    assert all(split.stop - split.start <= 20_000 for split in made.splits)
    assert rows(read(made)) == expected(200)


def test_types_and_members_that_some_samples_lack(tmp_path):
    names = ["a.jpg", "a.json", "a.npy", "b.seg.png", "b.wav", "sub/b.mp4", "sub/b.en.txt"]
    (tmp_path / "a.tar").write_bytes(tar((name, b"{}") for name in names))
    made = plan(tmp_path)
    assert made.schema.names == ["__key__", "en.txt", "jpg", "json", "mp4", "npy", "seg.png", "wav"]
    kinds = {name: str(made.schema.field(name).type) for name in made.schema.names}
    assert {n for n, kind in kinds.items() if kind == "string"} == {"__key__", "en.txt", "json"}
    got = rows(read(made))
    assert [row["__key__"] for row in got] == ["a", "b", "sub/b"]
    assert [sorted(k for k, v in row.items() if v == b"{}" or v == "{}") for row in got] == [
        ["jpg", "json", "npy"], ["seg.png", "wav"], ["en.txt", "mp4"],
    ]  # fmt: skip
    # Only what is asked for is read.
    fields = [made.schema.field("__key__"), made.schema.field("wav")]
    some = open_source("webdataset", {}, pa.schema(fields))
    batch = some.read(split_of(str(tmp_path / "a.tar"), 0, -1))
    assert batch.rows.schema.names == ["__key__", "wav"]


def test_what_is_no_sample_harms_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = []
    for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("0000.png")
        info.type = kind
        odd.append(info)
    folder = tarfile.TarInfo("sub.d")
    folder.type = tarfile.DIRTYPE
    long = "long/" * 60 + "name.jpg"
    members = [
        folder, *odd, *numbered(1), ("../up.jpg", b"up"), ("/abs.jpg", b"abs"),
        ("README", b"?"), ("._0000.jpg", b"?"), (long, b"long"), ("x.jpg", b"1"), ("y.jpg", b"2"),
        ("x.jpg", b"not adjacent"),
    ]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(tar(members))
    got = rows(read(plan(tmp_path / "a.tar", rows_per_part=2)))
    keys = ["0000", "../up", "/abs", long[:-4], "x", "y", "x"]
    assert [row["__key__"] for row in got] == keys
    assert [row["jpg"] for row in got][1:] == [b"up", b"abs", b"long", b"1", b"2", b"not adjacent"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_and_sparse_files_are_dead_rows_and_cost_no_other(tmp_path, suffix):
    """tar writes the second of two hard links, and links to files, without the data."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (0, 4):
        (folder / f"{number}.bin").write_bytes(b"same")
    os.link(folder / "0.bin", folder / "1.bin")
    (folder / "2.bin").symlink_to("0.bin")
    with open(folder / "3.bin", "wb") as file:  # longer than the tar
        file.truncate(2**30)
    subprocess.run(
        ["tar", "--sparse", "-cf", tmp_path / "a.tar", *sorted(os.listdir(folder))],
        cwd=folder,
        check=True,
    )
    if suffix == "tar.gz":
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        (tmp_path / "a.tar").unlink()
    for size in (None, 2):
        batches = read(plan(tmp_path / f"a.{suffix}", rows_per_part=size))
        got = {row["__key__"]: row["bin"] for row in rows(batches)}
        assert got == {"0": b"same", "1": None, "2": None, "3": None, "4": b"same"}
        assert sum(batch.rows.num_rows for batch in batches) == 5
        why = [f.message for batch in batches for _, f in sorted(batch.failures.items())]
        assert [message.split(",")[0].split(":")[0] for message in sorted(why)] == [
            "1.bin is a link to 0.bin",
            "2.bin is a link to 0.bin",
            "3.bin is a sparse file",
        ]


def test_a_member_twice_and_text_that_is_none_die_alone(tmp_path):
    members = [*numbered(2), ("d.txt", b"1"), ("d.TXT", b"2"), ("e.txt", b"\xff"), ("f.txt", b"f")]
    (tmp_path / "a.tar").write_bytes(tar(members))
    (batch,) = read(plan(tmp_path))
    assert {row: failure.message for row, failure in batch.failures.items()} == {
        2: "two members d.txt",
        3: batch.failures[3].message,
    }
    assert "e.txt is not UTF-8" in batch.failures[3].message
    assert batch.rows["__key__"].to_pylist() == ["0000", "0001", "d", "e", "f"]
    assert batch.rows["txt"].to_pylist() == ["é 0", "é 1", None, None, "f"]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("size", [None, 3])
def test_a_shard_that_was_cut_off_ends_in_a_dead_letter(tmp_path, suffix, size):
    whole = tar(numbered(20), tarfile.USTAR_FORMAT)
    pack = gzip.compress if suffix == "tar.gz" else bytes
    rng = random.Random(0)
    end = max(i for i, byte in enumerate(whole) if byte)
    for cut in [1, 100, 511, 512, 600, 1024, *rng.sample(range(end), 20), end // 512 * 512]:
        data = pack(whole)
        keep = cut if suffix == "tar" else 18 + cut * (len(data) - 30) // len(whole)
        (tmp_path / f"a.{suffix}").write_bytes(data[:keep])
        (tmp_path / f"b.{suffix}").write_bytes(pack(tar(numbered(1, 99))))
        batches = read(plan(tmp_path, rows_per_part=size))
        bad = [(batch, row) for batch in batches for row in batch.failures]
        assert len(bad) == 1, cut
        batch, row = bad[0]
        assert "can't be read from byte" in batch.failures[row].message
        good = [r for b in batches for i, r in enumerate(b.rows.to_pylist()) if i not in b.failures]
        assert good == [*expected(len(good) - 1), *expected(1, 99)], "what lies before is read"
        if suffix == "tar":
            assert len(good) - 1 >= cut // 4000 - 1


def test_damage_is_never_taken_for_the_end(tmp_path):
    data = bytearray(tar(numbered(20), tarfile.USTAR_FORMAT))
    place = bytes(data).index(b"0010.jpg")
    data[place : place + 512] = b"?" * 512
    (tmp_path / "a.tar").write_bytes(data)
    (batch,) = read(plan(tmp_path))
    # The sample before it may have had more members.
    assert list(batch.failures) == [9]
    assert batch.rows.num_rows == 10
    # A tar behind another is read, too: other readers stop at the first one's end.
    (tmp_path / "a.tar").write_bytes(tar(numbered(3)) + tar(numbered(4, 3)))
    for size in (None, 2):
        assert rows(read(plan(tmp_path, rows_per_part=size))) == expected(7)
    # What no tar is behind it is told, and blames no sample that is whole.
    (tmp_path / "a.tar").write_bytes(tar(numbered(3)) + b"?" * 512)
    for size in (None, 2, 3):
        batches = read(plan(tmp_path, rows_per_part=size))
        assert rows(batches)[:3] == expected(3)
        assert rows(batches)[3]["__key__"] is None
        assert [list(batch.failures) for batch in batches if batch.failures] == [[3 % (size or 9)]]


class Frugal(io.BytesIO):
    def read(self, count=-1):
        assert 0 <= count <= 2**20
        return super().read(count)


def test_headers_that_lie_cost_no_memory():
    info = tarfile.TarInfo("a.jpg")
    info.size = 2**45
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        head = info.tobuf(format)
        (sample,) = read_samples(Place(Frugal(head + b"x" * 1000)), 0, -1, lambda extension: True)
        assert "a.jpg is cut off" in str(sample.error)
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info.type = kind
        large = info.tobuf(tarfile.GNU_FORMAT) + bytes(2**21)
        (sample,) = read_samples(Place(Frugal(large)), 0, -1, bool)
        assert "a header of more than 1,048,576 bytes" in str(sample.error)
    chain = tarfile.TarInfo("././@LongLink")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 0
    (sample,) = read_samples(Place(io.BytesIO(chain.tobuf(tarfile.GNU_FORMAT) * 3000)), 0, -1, bool)
    assert sample.error


def test_a_tar_without_samples_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar([("README", b"x")]))
    with pytest.raises(ConfigError, match=r"no sample in .*a\.tar"):
        plan(tmp_path)


def test_a_job_over_shards_of_which_one_was_cut_off(models, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar(numbered(6), tarfile.USTAR_FORMAT)[:8000])
    (tmp_path / "in/b.tar").write_bytes(tar(numbered(6, 6)))
    report = pipemill.run(
        task="text-classification",
        model=models["text-classification"],
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        columns={"text": "txt"},
        actors={"placement": "local"},
    )
    assert report.dead == 1
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.names == ["__key__", "cls", "txt", "label", "score"]
    kept = [f"{i:04}" for i in range(report.rows - 7)] + [f"{i:04}" for i in range(6, 12)]
    assert table["__key__"].to_pylist() == kept
    (letters,) = (tmp_path / "out/_pipemill/dead-letter").iterdir()
    (letter,) = pq.read_table(letters).to_pylist()
    assert (letter["stage"], letter["__key__"]) == ("read", f"{report.rows - 7:04}")
    assert "jpg" not in letter


class Sizes:
    """A task of one image, or of one text: how long it is."""

    name = "sizes"
    inputs = (Column(name="image", kind="image"),)
    results = staticmethod(lambda loaded: pa.schema([("size", pa.int64())]))


def assembled(folder, mapping=None, keep="all"):
    """The plan of a job over a folder of shards, its source, and the column that it reads."""
    made = Plan.from_bytes(plan(folder).to_bytes())
    merged = merge_columns(made.schema, (mapping or {}).values())
    schema = pa.schema([*made.schema, *merged])
    columns = resolve_columns("sizes", Sizes.inputs, mapping or {}, {}, schema)
    kept = list_kept_columns(keep, schema)
    read = pa.schema([f for f in schema if f.name in {*kept, *columns.values()}])
    return made, open_source("webdataset", {}, read), columns["image"], kept


def images(folder, mapping=None, keep="all"):
    """The images that the task is given, and the messages of rows that die, by key."""
    made, source, column, _ = assembled(folder, mapping, keep)
    given, dead = {}, {}
    for split in made.splits:
        batch = source.read(split)
        for number, row in enumerate(batch.rows.to_pylist()):
            given[row["__key__"]] = row[column]
            if number in batch.failures:
                dead[row["__key__"]] = batch.failures[number].message
    return given, dead


def shard(path, *names):
    path.write_bytes(tar((name, name.encode()) for name in names))


def test_several_suffixes_of_a_kind_are_one_column(tmp_path):
    shard(tmp_path / "a.tar", "0.jpg", "0.txt", "1.jpeg", "2.PNG", "3.txt")
    assert images(tmp_path) == (
        {"0": b"0.jpg", "1": b"1.jpeg", "2": b"2.PNG", "3": None},
        {},
    )
    *_, column, kept = assembled(tmp_path)
    assert (column, kept) == ("image", ["__key__", "txt"])
    assert assembled(tmp_path, keep=["image"])[-1] == ["image"]
    # What the user names is what is read.
    assert images(tmp_path, {"image": "jpg"})[0] == {"0": b"0.jpg", "1": None, "2": None, "3": None}
    assert images(tmp_path, {"image": "png;jpg"})[0] == {
        "0": b"0.jpg",
        "1": None,
        "2": b"2.PNG",
        "3": None,
    }


def test_a_suffix_that_no_sampled_shard_has_is_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr("pipemill.actors.sources.webdataset.SAMPLED_ROWS", 1)
    shard(tmp_path / "a.tar", "0.jpg", "1.webp", "2.gif", "2.jpg")
    given, dead = images(tmp_path)
    assert given == {"0": b"0.jpg", "1": b"1.webp", "2": None}
    assert "sample 2 has several members for 'image' (jpg, gif)" in dead["2"]
    assert "--column image=jpg" in dead["2"]
    assert images(tmp_path, {"image": "jpg;gif"})[1] == {}


def test_two_images_of_one_sample_are_two_columns(tmp_path):
    for names in (["0.jpg", "0.seg.png"], ["0.jpg", "0.png", "1.jpeg"]):
        shard(tmp_path / "a.tar", *names)
        with pytest.raises(
            ConfigError, match=r"the input has several \(.*'image=\w+(\.|;)"
        ) as told:
            assembled(tmp_path)
        named = re.search(r"'image=(.+)'", str(told.value))[1]
        assert images(tmp_path, {"image": named})[1] == {}
        assert images(tmp_path, {"image": "jpg"})[0]["0"] == b"0.jpg"
    assert images(tmp_path, {"image": "png;jpg;jpeg"})[0] == {"0": b"0.png", "1": b"1.jpeg"}


def test_an_older_plan_names_the_column_as_it_did(tmp_path):
    shard(tmp_path / "a.tar", "0.jpg", "1.jpg")
    made = plan(tmp_path)
    place = made.schema.get_field_index("jpg")
    old = made.schema.set(place, make_files_column("jpg"))
    assert merge_columns(old, []) == []
    assert resolve_columns("sizes", Sizes.inputs, {}, {}, old) == {"image": "jpg"}


BAD = {
    "empty": b"",
    "html": b"<html><title>Sign in</title></html>" * 20,
    "cut": gzip.compress(tar(numbered(3)))[:40],
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.zst"])
@pytest.mark.parametrize("size", [None, 2])
def test_a_shard_that_is_no_tar_is_one_dead_row_beside_others(tmp_path, bad, suffix, size):
    (tmp_path / f"a.{suffix}").write_bytes(BAD[bad])
    pack = {"tar": bytes, "tar.zst": zstandard.compress}.get(suffix, gzip.compress)
    (tmp_path / f"b.{suffix}").write_bytes(pack(tar(numbered(3))))
    batches = read(plan(tmp_path, rows_per_part=size))
    assert sum(len(batch.failures) for batch in batches) == 1
    assert f"{tmp_path}/a.{suffix}: the tar can't be read" in batches[0].failures[0].message
    assert rows(batches)[1:] == expected(3)
    (tmp_path / f"b.{suffix}").write_bytes(BAD[bad])
    with pytest.raises(ConfigError, match=rf"can't read .*a\.{suffix}: the tar can't be read"):
        plan(tmp_path, rows_per_part=size)


def test_a_store_that_fails_within_a_shard_is_asked_again(tmp_path, monkeypatch):
    """As from the network: the samples after that place are no dead letters."""
    (tmp_path / "a.tar").write_bytes(tar(numbered(30)))
    made = plan(tmp_path)
    monkeypatch.setattr(backoff, "WAITS_S", (0.0,))
    left, take = [20], _Walk.take

    def take_or_fail(walk, count):
        left[0] -= 1
        if not left[0]:
            raise ConnectionResetError(104, "reset by peer")
        return take(walk, count)

    monkeypatch.setattr(_Walk, "take", take_or_fail)
    (batch,) = read(made)
    assert left[0] < 0
    assert not batch.failures
    assert rows([batch]) == expected(30)


def test_of_many_shards_only_very_large_ones_are_cut(tmp_path, monkeypatch):
    for name, value in {"LARGE_FILE": 20_000, "_MANY": 3, "_VERY_LARGE": 200_000}.items():
        monkeypatch.setattr(f"pipemill.actors.sources.webdataset.{name}", value)
    monkeypatch.setattr("pipemill.actors.sources.split_ranges._FEWEST_ROWS", 1)
    monkeypatch.setattr("pipemill.actors.sources.split_ranges.FEW_SPLITS", 400)

    def count_splits():
        paths = [split.path for split in plan(tmp_path).splits]
        return [paths.count(str(path)) for path in sorted(tmp_path.iterdir())]

    for number, samples in enumerate((60, 150)):
        (tmp_path / f"{number}.tar").write_bytes(tar(numbered(samples), tarfile.USTAR_FORMAT))
    assert min(count_splits()) > 1, "they are few"
    (tmp_path / "2.tar").write_bytes(tar(numbered(60), tarfile.USTAR_FORMAT))
    small, large, other = count_splits()
    assert (small, other) == (1, 1)
    assert large > 1


@pytest.mark.parametrize("order", ["forward", "any"])
@pytest.mark.parametrize("format", FORMATS[:2])
def test_of_very_many_shards_none_is_read_to_be_cut(tmp_path, monkeypatch, order, format):
    """Each range has the samples that begin in it, wherever it was cut."""
    monkeypatch.setattr("pipemill.actors.sources.webdataset._VERY_MANY", 3)
    monkeypatch.setattr("pipemill.actors.sources.webdataset.LARGE_FILE", 20_000)
    for module in ("byte_ranges", "webdataset"):
        monkeypatch.setattr(f"pipemill.actors.sources.{module}.SAMPLED_ROWS", 5)
    monkeypatch.setattr("pipemill.actors.sources.split_ranges._FEWEST_ROWS", 1)
    monkeypatch.setattr("pipemill.actors.sources.split_ranges.FEW_SPLITS", 400)
    monkeypatch.setattr(kept_streams, "_kept", [])
    # One sample is longer than several ranges, and names are longer than a header.
    long = [("long/" * 60 + "n.jpg", b"long" * 20_000), ("long/" * 60 + "n.txt", b"l")]
    for number in range(3):
        data = tar([*numbered(60), *long, *numbered(40, 60)], format)
        (tmp_path / f"{number}.tar").write_bytes(data + tar(numbered(20, 100)))
    (tmp_path / "3.tar").write_bytes(b"")
    damaged = bytearray((tmp_path / "2.tar").read_bytes())
    place = bytes(damaged).index(b"0070.jpg")
    damaged[place : place + 512] = b"?" * 512
    (tmp_path / "2.tar").write_bytes(damaged)
    headers, usual = [], _Walk.members

    def note(walk, stop):
        for member in usual(walk, stop):
            headers.append(member)
            yield member

    monkeypatch.setattr(_Walk, "members", note)
    made = plan(tmp_path)
    assert len(headers) < 120, "those of the first samples"
    headers.clear()
    cuts = [split for split in made.splits if split.stop >= 0]
    assert len(cuts) == len(made.splits) - 1 > 60
    source, chosen = open_source(made.format, {}, made.schema), list(made.splits)
    if order == "any":
        random.Random(0).shuffle(chosen)
    batches = {split.number: source.read(split) for split in chosen[:100]}
    if order == "forward":
        assert len(headers) < 3 * 120 + 2 + 100, "each once, and the first one of the next range"
    batches |= {split.number: source.read(split) for split in chosen[100:]}
    batches = [batches[split.number] for split in made.splits]
    keys = [f"{n:04}" for n in range(120)]
    keys.insert(60, "long/" * 60 + "n")
    got = [row["__key__"] for row in rows(batches)]
    assert got == [*keys, *keys, *keys[:71], None]
    (batch, row), empty = [(batch, row) for batch in batches for row in batch.failures]
    assert batch.rows["__key__"][row].as_py() == "0069"
    assert "the tar can't be read from byte" in batch.failures[row].message
    assert empty[0] is batches[-1]
    assert any(batch.rows.num_rows == 0 for batch in batches)
    good = [row for row in rows(batches[:-1]) if row["__key__"] < "0060"]
    assert good == 3 * expected(60)
