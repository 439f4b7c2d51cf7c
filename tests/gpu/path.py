"""Prints a folder with nothing but a link to mpc_ray, for PYTHONPATH: the root would bring `kernels` along."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    folder = Path(tempfile.gettempdir()) / f"mpc-ray-path-{root.stat().st_ino}"
    folder.mkdir(mode=0o700, exist_ok=True)
    link = folder / "mpc_ray"
    if not link.is_symlink():
        link.symlink_to(root / "mpc_ray")
    sys.stdout.write(str(folder))
