"""A server on loopback that takes datasets like the Hugging Face Hub, for uploads without Xet."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_swordfish"


@dataclass
class Datasets:
    """What the server holds and was asked.

    Attributes:
        files: the files of each dataset, by its name.
        private: which datasets are private.
        commits: the operations of each commit: the keys and paths of its lines.
        uploads: how many files were uploaded.
        refuses: paths that begin so are refused.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    commits: list[list[tuple[str, str]]] = field(default_factory=list)
    uploads: int = 0
    refuses: str | None = None
    objects: dict[str, bytes] = field(default_factory=dict)

    def head(self) -> str:
        return f"{len(self.commits):040x}"


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(".parquet")


@contextmanager
def hub_datasets() -> Iterator[Datasets]:
    """Serve as HF_ENDPOINT. Everything needs the token."""
    state = Datasets()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.objects[self.path.rsplit("/", 1)[-1]] = body
            state.uploads += 1
            self._send(200, b"")

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, b'{"error": "Invalid token"}')
            elif state.refuses and path.startswith(state.refuses):
                self._send(403, b'{"error": "You may not write here"}')
            elif path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif path.endswith("/info/lfs/objects/batch"):
                self._json({"transfer": "basic", "objects": [
                    {**one, **({} if one["oid"] in state.objects else {
                        "actions": {"upload": {"href": f"{state.url}/lfs/{one['oid']}"}}
                    })}
                    for one in json.loads(body)["objects"]
                ]})  # fmt: skip
            elif path.startswith("/api/datasets/"):
                user, name, *rest = path.removeprefix("/api/datasets/").split("/")
                self._dataset(f"{user}/{name}", rest, body)
            else:  # /datasets/USER/NAME/resolve/main/FILE
                _, _, user, name, _, _, file = path.split("/", 6)
                data = state.files[f"{user}/{name}"][file]
                self._send(200, data, {"ETag": f'"{_blob_id(data)}"'})

        def _create(self, wanted: dict) -> None:
            name = f"{wanted['organization'] or 'someone'}/{wanted['name']}"
            assert wanted["type"] == "dataset"
            if name in state.files:
                self._json({"url": f"{state.url}/datasets/{name}"}, 409)
                return
            state.files[name] = {}
            if wanted.get("visibility") == "private":
                state.private.add(name)
            self._json({"url": f"{state.url}/datasets/{name}"})

        def _dataset(self, name: str, rest: list[str], body: bytes) -> None:
            files = state.files[name]
            if rest[:1] == ["preupload"]:
                self._json({"files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if _is_large(one["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": self._oid(files, one["path"]),
                    }
                    for one in json.loads(body)["files"]
                ]})  # fmt: skip
            elif rest[:1] == ["commit"]:
                self._commit(name, [json.loads(line) for line in body.splitlines()])
            elif rest[:1] == ["tree"]:
                self._json([
                    {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
                    for path, data in files.items()
                ])  # fmt: skip
            else:
                siblings = [{"rfilename": path} for path in files]
                private = name in state.private
                self._json({"id": name, "sha": state.head(), "siblings": siblings}
                           | {"private": private})  # fmt: skip

        def _oid(self, files: dict[str, bytes], path: str) -> str | None:
            if path not in files:
                return None
            data = files[path]
            return hashlib.sha256(data).hexdigest() if _is_large(path) else _blob_id(data)

        def _commit(self, name: str, lines: list[dict]) -> None:
            header, *operations = lines
            files = state.files[name]
            assert header["key"] == "header"
            for one in operations:
                value = one["value"]
                if one["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif one["key"] == "lfsFile":
                    files[value["path"]] = state.objects[value["oid"]]
                else:
                    assert one["key"] == "deletedFile"
                    del files[value["path"]]
            state.commits.append([(one["key"], one["value"]["path"]) for one in operations])
            url = f"{state.url}/datasets/{name}"
            self._json({"commitUrl": f"{url}/commit/{state.head()}", "commitOid": state.head()})

        def _json(self, answer: object, status: int = 200) -> None:
            self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "X-Repo-Commit": state.head()}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
