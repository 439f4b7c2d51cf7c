"""Makes the helpers of this folder, and those of the protocols' tests, importable."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "protocols")]
