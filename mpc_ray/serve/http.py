"""HTTP/1.1 of the gateway: bounded (``listening.http``), and what is no HTTP is answered with a problem too."""

from __future__ import annotations

from mpc_ray.listening.http import BoundedProtocol
from mpc_ray.serve.problems import MEDIA_TYPE, Problem


class GatewayProtocol(BoundedProtocol):
    """One connection of a caller."""

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP/1.1."""
        problem = Problem(400, "invalid", "the request is not HTTP/1.1, or its headers are too large")
        body = problem.response("").body
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + bytes(body))
        self.transport.close()
