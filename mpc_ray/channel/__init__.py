"""Channels between parties and links between client and party: frames, TLS, counts, and ways to make them
fail.

Within one process: ``local_channels``, ``local_link``. Over sockets: ``Listener`` at every party,
``dial_party`` at the client.
"""

from mpc_ray.channel.dial import dial_party
from mpc_ray.channel.framed import FramedChannel
from mpc_ray.channel.hello import Digests, Hello, digest
from mpc_ray.channel.interface import Address, Channel, byte_view
from mpc_ray.channel.link import Link, local_link
from mpc_ray.channel.listener import Listener
from mpc_ray.channel.local import local_channels
from mpc_ray.channel.meter import Meter
from mpc_ray.channel.packed import JSON, Message, pack, unpack
from mpc_ray.channel.wrappers import CutOff, Delayed, Tampering

__all__ = [
    "JSON",
    "Address",
    "Channel",
    "CutOff",
    "Delayed",
    "Digests",
    "FramedChannel",
    "Hello",
    "Link",
    "Listener",
    "Message",
    "Meter",
    "Tampering",
    "byte_view",
    "dial_party",
    "digest",
    "local_channels",
    "local_link",
    "pack",
    "unpack",
]
