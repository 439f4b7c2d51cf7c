"""Errors of mpc-ray: one small hierarchy, every error with a cause and a remedy.

The message says what is wrong and where; ``remedy`` says what to do about it. No error ever carries a
share, a text or a weight: Ray keeps exception texts in task events and spans.
"""

from __future__ import annotations

import errno


class MpcError(Exception):
    """Base of all errors raised on purpose. ``str(e)`` is one line: cause, then remedy.

    ``code`` is a word for machines where a class alone says too little; empty for most.
    """

    exit_code = 1
    code: str = ""

    def __init__(self, cause: str, *, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} ({self.remedy})" if self.remedy else self.cause


class ConfigError(MpcError):
    """A setting that is unknown, malformed or contradicts another."""

    exit_code = 2


class NotNow(ConfigError):
    """A setting that may well be right, but cannot be had now: a port or a folder that another process still has, an
    address that is not up yet, a full disk. Who supervises a service starts it again (75 is EX_TEMPFAIL of sysexits.h).
    """

    exit_code = 75


def cannot_listen(cause: str, error: OSError, *, remedy: str) -> ConfigError:
    """What to raise where a port cannot be listened on: NotNow where that may pass."""
    passes = error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
    return (NotNow if passes else ConfigError)(cause, remedy=remedy)


class InputError(MpcError):
    """A text, tensor or argument the computation cannot take."""

    exit_code = 2


class ModelError(MpcError):
    """A model folder that lacks something, or holds something that does not fit."""

    exit_code = 3


class ScaleError(MpcError):
    """A fixed-point scale that does not match, or a product that would not fit the ring."""

    exit_code = 3


class RangeExceeded(MpcError):
    """A value left the window its function was calibrated for. Raised at the client only."""

    exit_code = 4


class ChannelError(MpcError):
    """A connection between parties, or between client and party, failed."""

    exit_code = 5


class PeerLost(ChannelError):
    """A peer closed its connection, died, or stayed silent past the deadline. ``peer`` names it."""

    def __init__(self, peer: str, cause: str, *, remedy: str = "") -> None:
        super().__init__(f"{peer}: {cause}", remedy=remedy)
        self.peer = peer


UNEQUAL_COPIES = "unequal_copies"


class CheatingDetected(MpcError):
    """A check of malicious_3pc failed: a party did not do what the protocol says. The session is over for good.

    ``culprits``: the one or two parties (0, 1, 2) that must be behind it, as the party sees it that raises this: it
    knows that it was honest itself. ``second_hand``: another party found it and said so. ``code`` UNEQUAL_COPIES: or
    whoever dealt the shares is, a client or the model's owner, and all parties may be honest.
    """

    exit_code = 8

    def __init__(
        self, cause: str, culprits: tuple[int, ...] = (), *, remedy: str = "", second_hand: bool = False
    ) -> None:
        who = " or ".join(f"party {party}" for party in culprits)
        super().__init__(
            cause,
            remedy=remedy or f"do not run again with {who or 'these parties'} before it is explained",
        )
        self.culprits = culprits
        self.second_hand = second_hand


class BadFrame(ChannelError):
    """A frame whose header or length is not what this step must have."""


class HelloMismatch(ChannelError):
    """Two ends differ in version, PRF, configuration, model or calibration."""


class CertificateError(ChannelError):
    """A certificate that is expired, of another authority, or another name's."""


class DeviceError(MpcError):
    """A device was asked for that is not there."""

    exit_code = 6


class PlacementError(MpcError):
    """The cluster cannot hold the three parties."""

    exit_code = 6


class SealError(MpcError):
    """Sealed bytes that do not open: another key's, another job's or party's, or changed on the way."""

    exit_code = 5


class AuthorisationError(MpcError):
    """A job authorisation that is malformed, expired, not signed by an enrolled key, or used before.

    ``code`` says which, in a word for machines (``expired``, ``unknown_key``, ``bad_signature``, ``replayed`` …).
    """

    exit_code = 5

    def __init__(self, cause: str, *, remedy: str = "", code: str = "unauthorised") -> None:
        super().__init__(cause, remedy=remedy)
        self.code = code


class Refused(AuthorisationError):
    """An authorisation that is genuine, but asks for what the policy forbids (``code``: purpose, jurisdiction …)."""


class Unavailable(MpcError):
    """Nobody can take this job now, though it may succeed later. ``retry_after_s`` is a hint in seconds."""

    exit_code = 5

    def __init__(self, cause: str, *, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(cause, remedy=remedy)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """Queues are full, or a quota is used up: the caller should slow down."""


class DeadlineExceeded(MpcError):
    """The time that the caller gave for this job is over. It may have been computed, or not."""

    exit_code = 5
