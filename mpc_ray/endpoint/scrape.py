"""Prometheus metrics of a party over plain HTTP, on the loopback alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mpc_ray.errors import cannot_listen
from mpc_ray.telemetry import metrics


class _Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.send_error(404)
            return
        body, kind = metrics.exposition()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who scrapes is nobody's business."""


@contextlib.contextmanager
def exposed(port: int) -> Iterator[None]:
    """/metrics on the loopback's ``port`` while the block runs; 0: none."""
    if not port:
        yield
        return
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise cannot_listen(
            f"metrics_port {port}: {error.strerror}", error, remedy="choose another port"
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
