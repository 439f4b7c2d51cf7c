"""Writes transcripts.json anew. Only after a change of the protocol that is meant: python tests/vectors/make.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The repository comes after site-packages, so that kernels/ hides no package of that name.
sys.path += [str(HERE), str(HERE.parent / "protocols"), str(HERE.parents[1])]

from cases import CASES, FORMAT, transcript  # noqa: E402

PATH = HERE / "transcripts.json"


def main() -> None:
    cases = {name: [transcript(name, k) for k in range(3)] for name in CASES}
    PATH.write_text(json.dumps({"format": FORMAT, "cases": cases}, indent=1) + "\n")
    sys.stdout.write(f"{PATH}: {len(cases)} sub-protocols, three roles each\n")


if __name__ == "__main__":
    main()
