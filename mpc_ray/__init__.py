"""mpc-ray: transformers run on secret text with secret weights, by three parties who must not collude.

    import mpc_ray

    with mpc_ray.Session() as session:
        model = session.load("path/to/all-MiniLM-L6-v2")
        vectors = model.embed(["Only the client ever sees this sentence."])

Importing this package is cheap: torch and ray are imported when a `Session` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpc_ray.session import Session

__version__ = "0.1.0"
__all__ = ["Session", "__version__"]


def __getattr__(name: str) -> object:
    """Import `Session` on first use (PEP 562)."""
    if name == "Session":
        from mpc_ray.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
