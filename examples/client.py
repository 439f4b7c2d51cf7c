"""Embed sentences through a service of three parties; only this process ever sees them.

    python examples/client.py "a sentence" "another one"

The gateway, the model's bundle and the keys are named by MPC_GATEWAY_… and MPC_CLIENT_… in the environment, or by a
settings file as `mpc-ray proxy` reads it (configs/proxy.example.yaml): MPC_CLIENT_CONFIG=FILE, or --config FILE. Needs
neither torch nor Ray: pip install mpc-ray.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from mpc_ray.client import Client
from mpc_ray.client.settings import ClientSettings
from mpc_ray.errors import MpcError

SENTENCES = [
    "How do I reset my password?",
    "I forgot my login and cannot get in.",
    "The museum opens at nine.",
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sentences", nargs="*", help="at least two")
    parser.add_argument("--config", metavar="FILE", help="YAML settings")
    given = parser.parse_args(arguments)
    sentences = given.sentences or SENTENCES
    if len(sentences) < 2:
        parser.error("give at least two sentences")
    try:
        settings = ClientSettings.load(given.config)
        with Client(settings.gateway, **settings.arguments()) as client:
            for name, parties in client.parties().items():
                operators = ", ".join(f"{party.operator} ({party.jurisdiction})" for party in parties)
                print(f"set {name}: {operators}")
            done = client.embed_reported(sentences)
    except MpcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    cosines = done.vectors @ done.vectors.T
    np.fill_diagonal(cosines, -1.0)
    for sentence, row in zip(sentences, cosines, strict=True):
        print(f"{row.max():.3f}  {sentence}  ->  {sentences[int(row.argmax())]}")
    for job in done.jobs:
        print(f"{job.texts} texts of up to {job.length} tokens: set {job.set}, {job.seconds:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
