"""A server on loopback that answers like the Hugging Face Hub, for folders of models and datasets.

It has one commit of each repository, and answers what huggingface_hub and datasets ask it for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The endpoint, for HF_ENDPOINT, and the paths of the files whose bytes were asked for.

    repositories: folders by their names on the Hub, such as "org/model" or "datasets/org/data".
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if path.startswith(("api/models/", "api/datasets/")):
                name = path.removeprefix("api/").removeprefix("models/")
                self._describe(name, body)
                return
            name, _, rest = path.partition("/resolve/")
            folder = repositories.get(name)
            file = None if folder is None else folder / rest.partition("/")[2]
            if file is None or not file.is_file():
                code = "RepoNotFound" if folder is None else "EntryNotFound"
                self._send(404, b"", body, {"X-Error-Code": code})
                return
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
            status, span = 200, self.headers.get("Range", "")
            if body:
                asked.append(f"{file.name} {span}".strip())
            if span.startswith("bytes="):
                first, _, last = span.removeprefix("bytes=").partition("-")
                stop = min(int(last or len(data)) + 1, len(data))
                headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
                data, status = data[int(first) : stop], 206
            self._send(status, data, body, headers)

        def do_POST(self) -> None:  # paths-info
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            path = unquote(urlsplit(self.path).path).strip("/").removeprefix("api/")
            name = path.removeprefix("models/").partition("/paths-info/")[0]
            folder = repositories.get(name)
            found = [] if folder is None else [folder / p.strip("/") for p in form["paths"]]
            entries = [_entry(folder, path) for path in found if path.exists()]
            self._send(200, json.dumps(entries).encode(), True, {})

        def _describe(self, rest: str, body: bool) -> None:
            parts = rest.split("/")
            cut = 3 if parts[0] == "datasets" else 2
            name, rest = "/".join(parts[:cut]), "/".join(parts[cut:])
            folder = repositories.get(name)
            files = [p for p in folder.rglob("*") if p.is_file()] if folder is not None else []
            names = [p.relative_to(folder or p).as_posix() for p in files]
            answer: object = {
                "id": name.removeprefix("datasets/"),
                "sha": COMMIT,
                "siblings": [{"rfilename": file} for file in names],
            }
            if rest.startswith("tree/") and folder is not None:
                below = folder / "/".join(rest.split("/")[2:])
                deep = "recursive=true" in urlsplit(self.path).query.lower()
                answer = [_entry(folder, p) for p in sorted(below.glob("**/*" if deep else "*"))]
            if folder is None:
                self._send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
            else:
                self._send(200, json.dumps(answer).encode(), body, {})

        def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "X-Repo-Commit": COMMIT}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _entry(folder: Path | None, path: Path) -> dict[str, object]:
    assert folder is not None
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0"}
    data = path.read_bytes()
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
