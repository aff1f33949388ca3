"""Servers on loopback that answer as Ray's head, as another server, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# The SETTINGS frame of HTTP/2 with which a gRPC server begins.
GRPC = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@contextmanager
def listen(answer: bytes) -> Iterator[str]:
    """Yield the address of a server that answers each connection so, once it is spoken to."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(100)
                connection.sendall(answer)
                if answer:
                    connection.close()
                else:
                    kept.append(connection)

    kept: list[socket.socket] = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        # A thread in `accept` keeps the socket open until somebody connects.
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for connection in kept:
            connection.close()
