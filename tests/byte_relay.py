"""A relay before a server that counts the bytes which pass, and changes none.

It stands apart from the gate, which holds requests up and has to understand them for it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Relay:
    """What came and went so far, in bytes of TCP payload: headers and bodies."""

    def __init__(self, endpoint: str) -> None:
        server = urlsplit(endpoint)
        self._upstream = (server.hostname or "", server.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._bytes = 0
        self._is_closed = False

    @property
    def bytes(self) -> int:
        """Both ways together."""
        with self._lock:
            return self._bytes

    def serve(self) -> None:
        """Take connections until `close`, and return when none is left."""
        threads = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass_on, args=(client,), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        # a thread in accept() does not notice that its socket was closed
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._is_closed = True
            for end in self._open:
                _shut(end)

    def _pass_on(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(self._upstream) as server,
        ):
            with self._lock:
                self._open |= {client, server}
                if self._is_closed:
                    return
            back = threading.Thread(target=self._carry, args=(server, client), daemon=True)
            back.start()
            self._carry(client, server)
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                with self._lock:
                    self._bytes += len(data)
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay_before(endpoint: str) -> Iterator[Relay]:
    """Run a relay before a server."""
    relay = Relay(endpoint)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join()
