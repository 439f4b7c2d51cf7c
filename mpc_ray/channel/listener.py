"""One listening port a party: its peers and its clients all dial it, and HELLO tells them apart.

``Port`` accepts; ``Listener`` is a port with a reception behind it, for one session. The handshakes are the
reception's (``reception.py``).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence

from mpc_ray.channel.framed import FramedChannel
from mpc_ray.channel.hello import Direction, Hello, Kind
from mpc_ray.channel.interface import Address
from mpc_ray.channel.link import DEFAULT_MAX_BYTES, Link
from mpc_ray.channel.reception import Reception, meet, shutdown
from mpc_ray.errors import ConfigError, NotNow, PeerLost, cannot_listen
from mpc_ray.trust.certs import Identity


class Port:
    """A listening socket and the thread that accepts. ``taker(socket, "host:port")`` must return soon.

    ``port`` 0 takes any free one. Raises ``ConfigError`` if it is in use or the host is not this machine's.
    """

    def __init__(
        self, host: str, port: int, taker: Callable[[socket.socket, str], object], name: str
    ) -> None:
        self._taker = taker
        self._closed = False
        self._server = _listen(host, port)
        self._server.settimeout(1.0)
        self._thread = threading.Thread(target=self._accept, name=f"accept, {name}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where to dial."""
        host, port = self._server.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Stop listening. Connections already taken stay open."""
        self._closed = True
        shutdown(self._server)
        self._thread.join(5)
        self._server.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, address = self._server.accept()
            except TimeoutError:
                continue
            except OSError:  # closed, or out of descriptors: then wait for some to be given back
                time.sleep(0 if self._closed else 0.1)
                continue
            try:
                self._taker(sock, f"{address[0]}:{address[1]}")
            except RuntimeError:  # no thread is to be had now: whoever dialled tries again, and so do we
                sock.close()
                time.sleep(0.1)


class Listener:
    """The listening socket of party ``me``. ``port`` 0 takes any free one; see ``address``.

    Raises ``ConfigError`` if the port is in use or the host is not this machine's.
    """

    def __init__(
        self,
        me: int,
        identity: Identity,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        handshake_timeout: float = 5.0,
    ) -> None:
        self.reception = Reception(me, identity, handshake_timeout=handshake_timeout)
        self._port = Port(host, port, self.reception.receive, f"party {me}")
        self.reception.place = "{}:{}".format(*self._port.address)

    @property
    def address(self) -> Address:
        """Where peers and clients dial."""
        return self._port.address

    def channel(
        self, addresses: Sequence[Address], hello: Hello, timeout: float = 10.0, *, step_timeout: float = 60.0
    ) -> FramedChannel:
        """Connect to both peers (``reception.meet``). Call it again for a new channel after one has failed, with a
        new session name.
        """
        return meet(self.reception, addresses, hello, timeout, step_timeout=step_timeout)

    def accept_client(
        self, hello: Hello, timeout: float = 10.0, *, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> Link:
        """The next client's link. A digest that one side leaves unstated is not compared.

        Raises ``PeerLost`` if none came within ``timeout`` (s), ``HelloMismatch``, ``CertificateError``.
        """
        end = time.monotonic() + timeout
        reception = self.reception
        first = reception.take(lambda a: a.greeting.kind is Kind.CLIENT, end)
        if first is None:
            raise PeerLost("client", f"did not connect within {timeout:g} s{reception.note}")
        streams = {first.greeting.direction: reception.welcome(first, hello, end)}
        token, other = first.greeting.token, Direction(1 - first.greeting.direction)
        second = reception.take(
            lambda a: (
                (a.greeting.kind, a.greeting.token, a.greeting.direction) == (Kind.CLIENT, token, other)
            ),
            end,
        )
        if second is None:
            first.drop()
            raise PeerLost("client", f"made one of its two connections only within {timeout:g} s")
        streams[other] = reception.welcome(second, hello, end)
        outgoing = streams[Direction.DIALLER_RECEIVES]
        outgoing.watch(60.0)
        return Link("client", outgoing, streams[Direction.DIALLER_SENDS], max_bytes=max_bytes)

    def close(self) -> None:
        """Stop listening and drop whoever waits. Channels and links already made stay open."""
        self.reception.close()
        self._port.close()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port {port} is not between 0 and 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NotNow(
                f"port {port} on {host} is in use",
                remedy="stop the program that holds it, or choose another port, or 0 for any",
            ) from None
        reason = error.strerror or type(error).__name__
        raise cannot_listen(
            f"cannot listen on {host}:{port}: {reason}",
            error,
            remedy="choose an address of this machine and a port above 1023",
        ) from None
