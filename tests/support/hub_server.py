"""A server on loopback that answers like the Hugging Face Hub, for folders of models."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The endpoint, for HF_ENDPOINT, and the paths of the files whose bytes were asked for.

    repositories: folders by their names on the Hub, such as "org/model".
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
            if path.startswith("api/models/"):
                self._describe(path.removeprefix("api/models/"), body)
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

        def _describe(self, rest: str, body: bool) -> None:
            name = "/".join(rest.split("/")[:2])
            folder = repositories.get(name)
            files = [p for p in folder.rglob("*") if p.is_file()] if folder is not None else []
            names = {p.relative_to(folder or p).as_posix(): p.stat().st_size for p in files}
            answer: object = {
                "id": name,
                "sha": COMMIT,
                "siblings": [{"rfilename": file} for file in names],
            }
            if "/tree/" in rest:
                answer = [
                    {"type": "file", "path": file, "size": size, "oid": "0"}
                    for file, size in names.items()
                ]
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
