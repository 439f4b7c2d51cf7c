"""Lets the tests of this folder import the modules beside them, and those of the protocols' tests."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "protocols")]
