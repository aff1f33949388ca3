"""In front of a real HTTP server: answers 503 in its place, or hangs up, as often as it is told."""

from __future__ import annotations

import http.client
import io
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# Method and path of a request, and how often it came before: None to let it through, 503 or
# another status to answer, 0 to hang up, LOST to let it through and hang up.
LOST = -1
Rule = Callable[[str, str, int], int | None]


class Proxy:
    """A context manager; `endpoint` is its address, `failed` how many requests it failed."""

    def __init__(self, target: str, rule: Rule) -> None:
        self.failed = 0
        seen: Counter[tuple[str, str]] = Counter()
        proxy, netloc = self, urlsplit(target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = (self.command, self.path)
                status = rule(*asked, seen[asked])
                seen[asked] += 1
                if status is None:
                    self._pass_on(body)
                    return
                proxy.failed += 1
                if status == LOST:
                    self.wfile = io.BytesIO()
                    self._pass_on(body)
                elif status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any

            def _pass_on(self, body: bytes) -> None:
                upstream = http.client.HTTPConnection(netloc, timeout=60)
                upstream.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect"):
                        upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                if answer.getheader("Content-Length") is None:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                upstream.close()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
