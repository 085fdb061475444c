"""An S3 server for trying things out: moto, in a process of its own, on loopback, in memory."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator

from s3runner.errors import SettingsError

ACCESS_KEY = SECRET_KEY = "demo"  # noqa: S105  # moto takes any

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def embedded_store() -> Iterator[str]:
    """Run the server for as long as the context; yield its endpoint. Raises SettingsError.

    The server ends when this process does, however that ends: it reads our end of a pipe.
    """
    if importlib.util.find_spec("moto") is None:
        raise SettingsError(
            "the demo needs moto, an S3 server for tests", hint="pip install 's3runner[demo]'"
        )
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = server.stdout.readline() if server.stdout else ""
        if not line.strip().isdecimal():
            raise SettingsError("the embedded S3 server did not start")
        yield f"http://127.0.0.1:{line.strip()}"
    finally:
        with contextlib.suppress(BrokenPipeError):
            server.communicate(timeout=10)
