"""The client of a service of three parties: texts are shared and sealed here, answers are opened here.

Nothing below imports torch, Ray or numba: ``pip install mpc-ray`` alone is enough (the proxy: ``mpc-ray[proxy]``).

``http``      ``AsyncClient``: texts to vectors           ``sync``      ``Client``, the same without asyncio
``jobs``      one batch, tried for as long as it helps    ``share``     texts to shares, summands to vectors
``request``   authorisation, envelopes, answers           ``parties``   the directory, and which set to ask
``gateway``   one HTTP exchange                           ``problems``  what a gateway's "no" means
``retry``     deadlines and pauses                        ``settings``  YAML file and environment
``bundle``    the model as clients have it                ``proxy``     OpenAI's and TEI's protocols, on this machine
"""

from mpc_ray.client.bundle import Bundle
from mpc_ray.client.http import AsyncClient, Embedded
from mpc_ray.client.jobs import JobNote
from mpc_ray.client.parties import Trust
from mpc_ray.client.sync import Client
from mpc_ray.trust.authorisation import SigningKey

__all__ = ["AsyncClient", "Bundle", "Client", "Embedded", "JobNote", "SigningKey", "Trust"]
