"""stream: RFC 8439's vectors, on the CPU and on the emulated device; the same streams that ``correlation`` expands."""

from __future__ import annotations

import struct

import pytest
import torch

from mpc_ray.correlation.stream import keystream
from mpc_ray.errors import InputError
from mpc_ray.kernels import device, stream
from mpc_ray.kernels.cuda import stream as cuda

# RFC 8439, appendix A.1: (key, nonce, block counter, key stream block)
VECTORS = (
    (bytes(32), bytes(12), 0,
     "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
     "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"),
    (bytes(32), bytes(12), 1,
     "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
     "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"),
    (bytes(31) + b"\x01", bytes(12), 1,
     "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
     "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"),
    (bytes(1) + b"\xff" + bytes(30), bytes(12), 2,
     "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
     "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096"),
    (bytes(32), bytes(11) + b"\x02", 0,
     "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
     "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d"),
    # section 2.3.2
    (bytes(range(32)), bytes.fromhex("000000090000004a00000000"), 1,
     "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
     "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"),
)  # fmt: skip


@pytest.mark.parametrize(("key", "nonce", "counter", "block"), VECTORS)
def test_vectors_of_rfc_8439(key: bytes, nonce: bytes, counter: int, block: str) -> None:
    want = bytes.fromhex(block)
    on_device = torch.empty(64, dtype=torch.uint8)
    cuda.expand(key, nonce, on_device, counter)
    assert bytes(on_device.tolist()) == want
    length = 64 * (counter + 1)
    assert bytes(stream.expand(key, nonce, torch.empty(length, dtype=torch.uint8)).tolist())[-64:] == want
    assert bytes(stream.expand_reference(key, nonce, length).tolist())[-64:] == want


def test_streams_are_those_of_the_correlation() -> None:
    key, nonce = bytes(range(32)), bytes(range(12))
    want = torch.from_numpy(keystream(key, struct.pack("<I", 0) + nonce, 1001, "chacha20"))
    assert torch.equal(stream.expand(key, nonce, torch.empty(1001, dtype=torch.uint8)), want)
    with device.emulating():
        assert torch.equal(stream.expand(key, nonce, torch.empty(1001, dtype=torch.uint8)), want)


@pytest.mark.parametrize("emulated", [False, True])
def test_three_zero_shares_add_up_to_zero(emulated: bool) -> None:
    keys = [bytes([i]) * 32 for i in range(3)]
    none = torch.zeros((7, 11), dtype=torch.int64)
    if emulated:
        with device.emulating():
            parts = [stream.zero_share(none, keys[i], keys[(i + 1) % 3], bytes(12)) for i in range(3)]
    else:
        parts = [stream.zero_share(none, keys[i], keys[(i + 1) % 3], bytes(12)) for i in range(3)]
    assert not torch.equal(parts[0], parts[1])
    assert torch.equal(parts[0] + parts[1] + parts[2], none)


def test_a_stream_over_several_pieces_in_place() -> None:
    z = torch.arange(3 * stream.PIECE + 5)
    key, nonce = bytes(range(32)), bytes(range(12))
    for minus in (False, True):
        want = stream.add_reference(z, key, nonce, -9, minus)
        into = z.clone()
        assert stream.add(into, key, nonce, -9, minus, out=into) is into
        assert torch.equal(into, want)


def test_refusals() -> None:
    z = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="16 bytes, not 32"):
        stream.add(z, bytes(16), bytes(12), 0)
    with pytest.raises(InputError, match="16 bytes, not 12"):
        stream.zero_share(z, bytes(32), bytes(32), bytes(16))
    with pytest.raises(InputError, match="int64"):
        stream.add(z.to(torch.int32), bytes(32), bytes(12), 0)
    huge = torch.zeros(1, dtype=torch.int64).expand((1 << 35) + 1)
    with pytest.raises(InputError, match="at most 256 GiB"):
        stream.zero_share(huge, bytes(32), bytes(32), bytes(12))
