"""Lets the tests of this folder import the modules beside them and those of the folder above."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
