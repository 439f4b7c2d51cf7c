"""The model handle's own decisions; what it computes is tested with the session and on shares."""

from __future__ import annotations

import pytest

from mpc_ray.errors import InputError, ModelError
from mpc_ray.model import bucket_lengths, model_folder, prepare


def test_buckets_end_at_what_model_and_protocol_take() -> None:
    assert bucket_lengths((16, 64, 512), 300) == (16, 64, 300)
    assert bucket_lengths((16, 32), 512) == (16, 32, 512)
    assert bucket_lengths((16, 512), 8194) == (16, 512, 1023)


def test_a_folder_is_a_path() -> None:
    with pytest.raises(ModelError, match="NoneType is no model's folder"):
        model_folder(None)  # type: ignore[arg-type]


def test_weights_are_secret_or_public() -> None:
    with pytest.raises(InputError, match="weights cannot be 'open'"):
        prepare("nowhere", (16,), weights="open")  # type: ignore[arg-type]
