"""What a row names is read only from below the job's roots, however it is written."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pipemill.pipelines.media import MediaAccess, MissingLibrary, require_media_library

REFUSED = "not below any of input.media_roots.*add its folder or URL to input.media_roots"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """pics/ is the root; everything outside says OUT."""
    base = tmp_path_factory.mktemp("tree")
    for name, text in {
        "pics/a.jpg": "IN a",
        "pics/deep/b c.jpg": "IN b",
        "pics/empty.jpg": "",
        "pics/file:/etc/x.jpg": "IN odd",
        "pics-secret/a.jpg": "OUT",
        "other/only.jpg": "OUT",
        "a.jpg": "OUT",
    }.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)
    (base / "pics/out").symlink_to(base / "other")
    (base / "pics/out.jpg").symlink_to(base / "a.jpg")
    (base / "pics/in.jpg").symlink_to(base / "pics/a.jpg")
    (base / "pics/loop").symlink_to(base / "pics/loop")
    os.mkfifo(base / "pics/pipe")
    return base


def test_bytes_need_no_root():
    access = MediaAccess()
    assert access.fetch(b"abc") == access.fetch(bytearray(b"abc")) == b"abc"
    assert access.fetch({"bytes": b"abc", "path": "/etc/passwd"}) == b"abc"
    with pytest.raises(PermissionError, match=f"{REFUSED}"):
        access.fetch({"bytes": None, "path": "a.jpg"})
    with pytest.raises(PermissionError, match=r"^not below any of .*'/etc/passwd'"):
        access.fetch("/etc/passwd")


@pytest.mark.parametrize(
    "value", [None, 3, "", {}, {"bytes": None, "path": None}, {"array": [0.0]}, [b"x"]]
)
def test_what_is_no_media_says_so(value):
    with pytest.raises(ValueError, match="^the value is (neither|an empty text).* a path"):
        MediaAccess().fetch(value)


@pytest.mark.parametrize("value", [b"", {"bytes": b"", "path": "a.jpg"}, "data:,", "empty.jpg"])
def test_empty_is_an_error(tree, value):
    with pytest.raises(ValueError, match=r"is empty \(0 bytes\)"):
        MediaAccess(roots=(str(tree / "pics"),)).fetch(value)


def test_files_below_a_root(tree):
    access = MediaAccess(roots=(str(tree / "nothing"), f"{tree}/pics/"))
    for name in ("a.jpg", "./a.jpg", "deep/../a.jpg", "in.jpg"):
        assert access.fetch(name) == b"IN a"
        assert access.fetch(f"{tree}/pics/{name}") == b"IN a"
    for url in (f"file://{tree}/pics/a.jpg", f"FILE://localhost{tree}/pics/a.jpg"):
        assert access.fetch(url) == b"IN a"
    assert access.fetch((tree / "pics/deep/b c.jpg").as_uri()) == b"IN b"
    assert access.fetch("file:/etc/x.jpg") == b"IN odd"  # a relative path like any other
    assert access.fetch({"path": "deep/b c.jpg"}) == b"IN b"


def test_a_relative_path_is_tried_under_each_root(tree):
    access = MediaAccess(roots=(str(tree / "pics"), str(tree / "other")))
    assert access.fetch("only.jpg") == b"OUT"
    assert access.fetch("a.jpg") == b"IN a"


@pytest.mark.parametrize(
    "name",
    [
        "{}/a.jpg",
        "{}/pics-secret/a.jpg",
        "{}/pics/../a.jpg",
        "{}/pics/out/only.jpg",
        "{}/pics/out.jpg",
        "../a.jpg",
        "deep/../../a.jpg",
        "out/only.jpg",
        "out.jpg",
        "file://{}/a.jpg",
        "file://{}/pics/../a.jpg",
        "file://{}/pics/%2e%2e/a.jpg",
        "FiLe://{}/a.jpg",
        "local://{}/a.jpg",
        "file://evil.com{}/pics/a.jpg",
        "file://../a.jpg",
        "zip://a::file://{}/a.jpg",
        "https://host/a.jpg",
        "/proc/self/environ",
        "/dev/zero",
    ],
)
def test_nothing_outside_the_root(tree, name):
    with pytest.raises(PermissionError, match=REFUSED):
        MediaAccess(roots=(str(tree / "pics"),)).fetch(name.format(tree))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jpg", "^no file 'none.jpg' below any of input.media_roots"),
        ("simplecache::file:///etc/passwd", "^no file 'simplecache::"),
        ("deep", "^'.*deep' is a folder, not a file"),
        (".", "is a folder, not a file"),
        ("pipe", "is a pipe or a device"),
        ("loop", "^can't read .*loop"),
        ("a\0.jpg", "^a path or URL must not have control characters"),
        ("a" * 3000, "^can't read .*too long"),
    ],
)
def test_what_cannot_be_read_is_named(tree, name, message):
    with pytest.raises((OSError, ValueError), match=message):
        MediaAccess(roots=(str(tree / "pics"),)).fetch(name)


PIECES = st.sampled_from(
    ".. . a.jpg deep out out.jpg in.jpg pics pics-secret other only.jpg %2e%2e ..%2f "
    "\..\ file: file:// {} ~ $HOME ::".split()
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, min_size=1, max_size=7), st.sampled_from(["", "/", "file://", "{}/pics/"]))
@example(["..", "a.jpg"], "{}/pics/")
def test_no_path_leaves_its_root(tree, pieces, start):
    name = (start + "/".join(pieces)).replace("{}", str(tree))
    try:
        assert MediaAccess(roots=(str(tree / "pics"),)).fetch(name).startswith(b"IN")
    except (OSError, ValueError) as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:text/plain,a%20b", b"a b"),
        ("data:image/png;base64," + base64.b64encode(b"\0\xff?>").decode(), b"\0\xff?>"),
        ("DATA:;BASE64,YWJj", b"abc"),
        ("data:;base64,YWI", b"ab"),
        ("data:;base64,YW\nJj", b"abc"),
    ],
)
def test_data_urls(url, data):
    assert MediaAccess().fetch(url) == data


def test_broken_data_urls():
    for url in ("data:nothing", "data:;base64,a*b", "data:;base64,a"):
        with pytest.raises(ValueError, match="^a data: URL"):
            MediaAccess().fetch(url)


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
    "gg=="
)


@pytest.mark.parametrize(
    "data",
    [
        PNG,
        b"\xff\xd8\xff\xe0" + bytes(range(256)),
        b"GIF89a" + b"\1" * 50,
        b"BM\1\2\3\4\0\0\0\0" + b"\1" * 50,
        b"RIFF\1\2\3\4WEBPVP8 " + b"\1" * 50,
        b"RIFF\1\2\3\4WAVEfmt " + b"\1" * 50,
        b"II*\0" + b"\1" * 51,
        b"fLaC" + b"\1" * 52,
        b"\0\0\0\x1cftypM4A " + b"\1\xff" * 50,
        b"\0\0\0\x1cftypisom" + b"\1\xff" * 50,
        b"\x1aE\xdf\xa3" + b"\1\xff" * 50,
        b"FORM\0\0}.AIFF" + b"\1\xff" * 50,
        b".snd\0\0\0 " + b"\1\xff" * 50,
        b"caff\0\1" + b"\1\xff" * 50,
        b"\xff\xfb\x90\xc4" + b"\1\xff" * 9000,  # MP3 without a mark before its first frame
        b"\xff\xf3\x58\xc0" + b"\1\xff" * 400,
        b"\xff\xf1\x60@" + b"\1\xff" * 400,  # AAC
    ],
)
def test_base64_text_of_media_is_the_file(data):
    text = base64.b64encode(data).decode()
    access = MediaAccess()
    lines = base64.encodebytes(data).decode()
    for value in (text, text.rstrip("="), lines, f"data:image/png,{text}", {"path": text}):
        assert access.fetch(value) == data
    safe = base64.urlsafe_b64encode(data).decode()
    assert access.fetch(f"data:;base64,{safe}") == data
    if not safe.startswith("_"):  # as a path may
        assert access.fetch(safe) == data


def test_base64_text_is_read_as_transformers_reads_it():
    from pipemill.pipelines.media import decode_image
    from transformers.image_utils import load_image

    text = base64.b64encode(PNG).decode()
    for value in (text, f"data:image/png;base64,{text}", base64.encodebytes(PNG).decode()):
        assert decode_image(MediaAccess().fetch(value)) == load_image(value)


def test_a_name_is_no_base64_and_a_value_is_never_told_whole(tree):
    access = MediaAccess(roots=(str(tree / "pics"),))
    long = "//nas/share/records/of/the/year/before/this/one/and/more/of/them/a.mp3"
    short = "//tmp/pytest-of-root/pytest-606/popen-gw1/tree0"  # as MP3 begins
    names = "iVBORw0KGgo", "/9j/4AAQ/pictures", "a" * 44, "iVBORw0KGgo" * 4 + "/a.jpg", long, short
    for name in names:
        with pytest.raises(OSError, match=r"^(no file|not below)"):
            access.fetch(name)
    text = base64.b64encode(PNG + b"\1" * 30_000).decode()
    for value, message in [
        (
            text[:20_000] + "*" + text[20_000:],
            "^the base64 text of an image or audio file is broken",
        ),
        ("e" * 20_000, "^a text of 20,000 characters is too long for a path or URL"),
        ("e" * 10_000, "^can't read .*too long"),
        ("/" + "e" * 10_000, "^not below any"),
        ("data:;base64," + "*" * 10_000, "^a data: URL that is not base64"),
    ]:
        with pytest.raises((OSError, ValueError), match=message) as caught:
            access.fetch(value)
        assert len(str(caught.value)) < 500


def test_a_root_must_name_a_place():
    for root in ("", "https://", "s3://", "https://host/a/../b", "zip://a::s3://b/c"):
        with pytest.raises(ValueError, match=r"input\.media_roots"):
            MediaAccess(roots=(root,))
    with pytest.raises(ValueError, match="must be a list"):
        MediaAccess(roots="/data")
    with pytest.raises(FileNotFoundError, match="input.media_roots names the folder '/no/such'"):
        MediaAccess(roots=("/no/such",)).check()


def test_options_are_neither_shown_nor_lost():
    access = MediaAccess(roots=("s3://b/c",), options='{"secret": "hush"}')
    assert "hush" not in repr(access)
    assert pickle.loads(pickle.dumps(access)) == access
    assert hash(access) == hash(MediaAccess(roots=("s3://b/c",), options='{"secret": "hush"}'))
    with pytest.raises(ValueError, match="not a JSON object") as caught:
        MediaAccess(options="hush")
    assert "hush" not in str(caught.value)


def test_relative_roots_are_meant_where_they_are_named(tree, monkeypatch):
    monkeypatch.chdir(tree)
    access = MediaAccess(roots=("pics",))
    monkeypatch.chdir(tempfile.gettempdir())
    assert access.fetch("a.jpg") == b"IN a"


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    require_media_library("image")
    with pytest.raises(
        MissingLibrary, match=r"^av is needed.*'audio'.*pip install 'pipemill\[media\]'"
    ):
        require_media_library("audio")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingLibrary, match="^pillow is needed"):
        require_media_library("image")


def test_importing_media_imports_no_library():
    code = (
        "import sys, pipemill.pipelines.media\n"
        "print({'PIL', 'av', 'soundfile', 'torch', 'aiohttp'} & set(sys.modules))"
    )
    code = "import pipemill\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
