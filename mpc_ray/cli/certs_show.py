"""``mpc-ray certs show``: who is in a federation and until when; who asks to be."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened
from mpc_ray.errors import ConfigError

if TYPE_CHECKING:
    from mpc_ray.trust.directory import Directory
    from mpc_ray.trust.records import Request

WARN_DAYS = 30
_DAY = 86400
_OTHER_FILES = {
    ".key": "is a private key, which nothing shows",
    ".keys": "holds private keys, which nothing shows",
    ".pem": "is a certificate alone",
}


def show(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="a folder, a directory.json, or a request.json to look at")
    ],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show who is in a federation, with the fingerprints of keys, and until when; or who asks to be, in a request.

    What ends within 30 days is named on standard error: renew it by ``rotate``, ``sign`` and ``install``. Exit code 1
    if something has expired: of a party's or gateway's folder, its own certificate or the directory; of a
    directory.json, anybody's.
    """
    del debug  # read by main
    from mpc_ray.trust import files
    from mpc_ray.trust.directory import Directory

    if path.is_dir():
        files.check_folder(path)
        if (path / "request.json").exists() and not (path / "directory.json").exists():
            raise ConfigError(
                f"{path} has no directory.json yet",
                remedy=f"have {path}/request.json signed, and install the answer; certs show takes the request too",
            )
        _show_directory(Directory.load(path / "directory.json"), path, as_json)
    elif path.suffix in _OTHER_FILES and path.exists():
        raise ConfigError(
            f"{path} {_OTHER_FILES[path.suffix]}",
            remedy=f"mpc-ray certs show {path.parent} shows the folder that it lies in",
        )
    elif (asked := _request(path)) is not None:
        _show_request(asked, as_json)
    else:
        _show_directory(Directory.load(path), None, as_json)


def _request(path: Path) -> Request | None:
    """The request in a file; None where it is something else: that is reported as no directory."""
    from mpc_ray.trust import canonical, files
    from mpc_ray.trust.authority import load_request
    from mpc_ray.trust.records import MAX_BYTES

    try:
        value = canonical.parse(files.read_public(path, MAX_BYTES), MAX_BYTES)
    except canonical.Malformed:
        return None
    return load_request(path) if isinstance(value, dict) and "csr" in value else None


def _show_request(asked: Request, as_json: bool) -> None:
    from mpc_ray.trust.directory import key_pin
    from mpc_ray.trust.records import PartyRecord

    pin, record = key_pin(asked.check()), asked.record
    with opened(as_json, guarded=False) as output:
        if as_json:
            said = {"place": record.place, "key": pin, "until": _date(record.not_after)}
            output.emit({"command": "certs show", "ok": True, "request": said, "record": record.to_json()})
            return
        output.console.print(f"request of {record.place}, signed by its own key")
        lines = {"key": pin, "until": _date(record.not_after)}
        if isinstance(record, PartyRecord):
            where = f"{record.region}, {record.jurisdiction}"
            lines |= {"operator": record.operator, "where": where, "for parties": record.peer}
            lines |= {"for gateways": record.gateway}
            lines |= {f"seals to {key.suite}": key.id for key in record.hpke}
        for name, value in lines.items():
            output.console.print(f"{name:20}  {value}", soft_wrap=True)
        output.notes.print(
            "compare the key with its operator's by another channel: mpc-ray certs sign believes it"
        )


def _show_directory(directory: Directory, folder: Path | None, as_json: bool) -> None:
    directory.verify(now=directory.issued)  # what it says is signed; whether it is still valid is shown below
    own = _place(folder)
    now, ends = time.time(), _ends(directory)
    expired = [place for place, until in ends.items() if until <= now]
    soon = [place for place, until in ends.items() if 0 < until - now < WARN_DAYS * _DAY]
    pending = folder is not None and (folder / "tls.next.key").exists()
    over = [place for place in expired if own is None or place in (own, _DIRECTORY)]
    with opened(as_json, guarded=False) as output:
        if as_json:
            said = {"ok": not over, "own": own, "expired": expired, "renew": soon, "pending": pending}
            output.emit({"command": "certs show", **said, **shown(directory)})
        else:
            pins = {entry.record.place: entry.pin[:16] for entry in directory.entries}
            output.console.print(f"federation {directory.federation}, directory {directory.serial}")
            output.console.print(f"authority {directory.fingerprint}")
            for place, until in ends.items():
                left = f"{(until - now) / _DAY:.0f} days left" if until > now else "expired"
                pin = f"  key {pins[place]}" if place in pins else ""
                here = "  (this folder)" if place == own else ""
                output.console.print(f"{place:20}  until {_date(until)}  {left}{pin}{here}")
            if soon:
                output.notes.print(f"ends within {WARN_DAYS} days: {', '.join(soon)}")
            if pending:
                output.notes.print("new keys wait for their certificate: have request.json signed")
    if over:
        raise typer.Exit(1)


_DIRECTORY = "the directory"


def _place(folder: Path | None) -> str | None:
    """Whose folder it is; None for the authority's, which is everybody's."""
    from mpc_ray.trust.folder import open_folder

    if folder is None or not (folder / "record.json").exists():
        return None
    return open_folder(folder).record.place


def _ends(directory: Directory) -> dict[str, int]:
    """Until when (Unix seconds) each certificate, and the directory itself, is valid."""
    ends = {entry.record.place: entry.not_after for entry in directory.entries}
    return ends | {_DIRECTORY: directory.expires}


def shown(directory: Directory) -> dict[str, Any]:
    """A directory as JSON for programs."""
    return {
        "federation": directory.federation,
        "serial": directory.serial,
        "fingerprint": directory.fingerprint,
        "ends": {place: _date(until) for place, until in _ends(directory).items()},
        "keys": {entry.record.place: entry.pin for entry in directory.entries},
        "records": [entry.record.to_json() for entry in directory.entries],
    }


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
