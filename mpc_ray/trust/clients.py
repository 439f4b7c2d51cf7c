"""Which clients' signing keys one party accepts: a file signed by the party's own key.

A file that somebody else changed is refused whole; a missing one means that nobody is enrolled. A running party sees a
change at once, and refuses a file older than the one it has read.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import AuthorisationError, ConfigError, InputError
from mpc_ray.trust import canonical, files
from mpc_ray.trust.authorisation import key_id
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.records import is_signed, sign, unbase64

FORMAT = "mpc-ray clients v1"
MAX_CLIENTS = 4096


@dataclass(frozen=True)
class ClientKey:
    """An enrolled key. ``public``: 64 hexadecimal digits; times are Unix seconds, ``revoked`` 0 while it is valid."""

    id: str
    name: str
    public: str
    enrolled: int
    revoked: int = 0


Signer = Callable[[], tuple[ec.EllipticCurvePrivateKey, Sequence[ec.EllipticCurvePublicKey]]]


class ClientKeys:
    """The enrolled keys in ``path``. Any thread may use it.

    ``signer`` gives the party's key, and others whose signature is accepted too; it is asked whenever the file is read
    or written, so that a rotation does not shut a running party out. Raises ``ConfigError`` if the file was not signed
    by one of those keys, or is damaged.
    """

    def __init__(self, path: Path, signer: Signer) -> None:
        self._path, self._signer = path, signer
        self._lock = threading.RLock()
        self._stamp: tuple[int, int, int] | None = None
        self._serial = 0
        self._clients: dict[str, ClientKey] = {}
        self.refresh()

    def find(self, client: str) -> bytes:
        """The 32 public bytes of an enrolled key. ``AuthorisationError`` (``unknown_key``, ``revoked_key``) if none.

        Looks first whether the file changed: one ``stat``.
        """
        self.refresh()
        found = self._clients.get(client)
        if found is None:
            raise AuthorisationError(
                "the signing key is not enrolled with this operator",
                remedy="send its public half to the operator: mpc-ray keys enroll",
                code="unknown_key",
            )
        if found.revoked:
            raise AuthorisationError(
                "the signing key was revoked by this operator",
                remedy="make and enrol a new one",
                code="revoked_key",
            )
        return bytes.fromhex(found.public)

    def list(self) -> tuple[ClientKey, ...]:
        """All keys, revoked ones too, by name."""
        self.refresh()
        return tuple(sorted(self._clients.values(), key=lambda client: (client.name, client.enrolled)))

    def enrol(self, name: str, public: bytes, now: float | None = None) -> ClientKey:
        """Accept a key from now on; one that is enrolled under this very name stays as it is.

        ``InputError`` if the name or the key is taken otherwise, or the key was revoked once.
        """
        try:
            canonical.matching(name, canonical.NAME, "name")
            if len(public) != 32:
                raise Malformed("public key has not 32 bytes")
        except Malformed as error:
            raise InputError(
                f"the client's {error}", remedy="give what mpc-ray keys signing printed, and a short name"
            ) from None
        new = ClientKey(key_id(public), name, public.hex(), int(time.time() if now is None else now))
        with files.locked(self._path.parent):
            self.refresh()
            for client in self._clients.values():
                if (client.id, client.name, client.revoked) == (new.id, name, 0):
                    return client
                if client.id == new.id:
                    what = "was revoked" if client.revoked else "is enrolled already"
                    raise InputError(f"this key {what}, as {client.name}", remedy="enrol another key")
                if client.name == name and not client.revoked:
                    raise InputError(
                        f"{name} has a key already", remedy="revoke it first, or choose another name"
                    )
            if len(self._clients) >= MAX_CLIENTS:
                raise InputError(
                    f"{MAX_CLIENTS} keys are enrolled, no more fit", remedy="ask for a larger limit"
                )
            self._write({**self._clients, new.id: new})
        return new

    def revoke(self, name_or_id: str, now: float | None = None) -> ClientKey:
        """Refuse a key from now on, and for ever. ``InputError`` if no valid key has that name or id."""
        with files.locked(self._path.parent):
            self.refresh()
            for client in self._clients.values():
                if name_or_id in (client.id, client.name) and not client.revoked:
                    gone = replace(client, revoked=int(time.time() if now is None else now))
                    self._write({**self._clients, gone.id: gone})
                    return gone
        raise InputError(
            "no valid key has that name or id",
            remedy="see mpc-ray keys list --party FOLDER for those that do",
        )

    def resign(self) -> None:
        """Sign the file anew with the present key, after a rotation. The caller holds the folder's lock."""
        self.refresh()
        if self._serial:
            self._write(dict(self._clients))

    def refresh(self) -> None:
        """Read the file again if it changed. ``ConfigError`` if it was not signed by this party, or is an older one."""
        with self._lock:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                if self._serial:
                    raise _bad(self._path, "is gone") from None
                return
            except OSError as error:
                raise _bad(self._path, f"cannot be read: {error.strerror}") from None
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            serial, clients = self._read()
            if serial < self._serial:
                raise _bad(self._path, "is older than the one that was read before")
            self._serial, self._clients, self._stamp = serial, clients, stamp

    def _read(self) -> tuple[int, dict[str, ClientKey]]:
        data = files.read_public(self._path, files.MAX_BYTES)
        try:
            kinds = {"format": str, "serial": int, "clients": list, "signature": str}
            content = canonical.take(canonical.parse(data, files.MAX_BYTES), kinds)
            signature = unbase64(content.pop("signature"), "signature")
            payload = canonical.encode(content)
            key, also = self._signer()
            publics = (key.public_key(), *also)
            if not any(is_signed(public, signature, FORMAT, payload) for public in publics):
                raise Malformed("is not signed by this party's key: it was changed by somebody else")
            if content["format"] != FORMAT:
                raise Malformed("is of another format")
            clients = [_client(value) for value in content["clients"]]
        except Malformed as error:
            raise _bad(self._path, str(error)) from None
        return content["serial"], {client.id: client for client in clients}

    def _write(self, clients: dict[str, ClientKey]) -> None:
        content = {
            "format": FORMAT,
            "serial": self._serial + 1,
            "clients": [asdict(client) for client in clients.values()],
        }
        signature = sign(self._signer()[0], FORMAT, canonical.encode(content))
        signed = content | {"signature": base64.b64encode(signature).decode()}
        files.write_private(self._path, canonical.encode(signed) + b"\n")
        self.refresh()


def parse_public(text: str) -> bytes:
    """The 32 bytes that ``mpc-ray keys signing`` printed. ``InputError`` if it is something else."""
    try:
        return canonical.unhex(text.strip(), 32, "public key")
    except Malformed as error:
        raise InputError(f"the {error}", remedy="give what mpc-ray keys signing printed") from None


def _client(value: Any) -> ClientKey:
    kinds = {"id": str, "name": str, "public": str, "enrolled": int, "revoked": int}
    client = ClientKey(**canonical.take(value, kinds))
    if key_id(canonical.unhex(client.public, 32, "public")) != client.id:
        raise Malformed("has a key under another key's id")
    return client


def _bad(path: os.PathLike[str], what: str) -> ConfigError:
    return ConfigError(
        f"the enrolled clients in {path} {what}",
        remedy="put the party's own file back, or remove it and enrol the clients again",
    )
