"""Lets the tests of this folder import the modules beside them, and those of trust."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "trust"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
