"""The client of a service of three parties: texts are shared and sealed here, answers are opened here.

Nothing below imports torch, Ray or numba: ``pip install mpc-ray`` alone is enough.
"""

from mpc_ray.client.bundle import Bundle

__all__ = ["Bundle"]
