"""Authorisations and envelopes: strict form, one digest, and a gateway that lies gets nowhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from authorised import CONTENTS, ISSUED, KEY, PARTIES, TO, an_authorisation
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import AuthorisationError, ConfigError, SealError
from mpc_ray.trust import canonical
from mpc_ray.trust.authorisation import (
    ENVELOPE,
    MAX_BYTES,
    OUTPUTS,
    Authorisation,
    SigningKey,
    key_id,
    open_envelope,
    seal_envelopes,
    verify,
)
from mpc_ray.trust.hpke import seal

GOOD = an_authorisation()
SIGNATURE = KEY.sign(GOOD)

NAMES = st.from_regex(canonical.NAME, fullmatch=True)
AUTHORISATIONS = st.builds(
    an_authorisation,
    job=st.binary(min_size=16, max_size=16).map(bytes.hex),
    federation=NAMES,
    set=NAMES,
    model=st.from_regex(canonical.MODEL, fullmatch=True),
    batch=st.integers(1, 1 << 16),
    length=st.integers(1, 1 << 16),
    output=st.sampled_from(OUTPUTS),
    range_check=st.booleans(),
    purpose=NAMES,
    jurisdictions=st.lists(st.from_regex(canonical.JURISDICTION, fullmatch=True), max_size=4).map(tuple),
)


@settings(max_examples=60)
@given(AUTHORISATIONS)
def test_json_and_back(a: Authorisation) -> None:
    text = json.dumps(a.to_json())
    assert Authorisation.from_json(text) == Authorisation.from_json(json.loads(text)) == a
    assert Authorisation.from_json(a.canonical()).digest() == a.digest()
    verify(a, KEY.sign(a), KEY.public)


@settings(max_examples=60)
@given(AUTHORISATIONS, AUTHORISATIONS)
def test_digests_differ_when_anything_does(a: Authorisation, b: Authorisation) -> None:
    assert (a.digest() == b.digest()) == (a == b)


def test_the_canonical_form_is_fixed() -> None:
    """Signatures of other releases depend on it."""
    fixed = dataclasses.replace(GOOD, client="0" * 32, inputs=("11" * 32, "22" * 32, "33" * 32))
    assert fixed.canonical().startswith(
        b'{"batch":4,"client":"00000000000000000000000000000000","expires_ms":1800000060000,'
    )
    expected = hashlib.sha256(canonical.bind("mpc-ray authorisation v1", fixed.canonical())).digest()
    assert fixed.digest() == expected
    assert expected.hex() == "d5f3940cd12062824eb48b0818c32661037ed37dc848e280134248f1ed974fa6"


@pytest.mark.parametrize(
    "change",
    [
        {"job": "00" * 15}, {"job": "AA" * 16}, {"job": 7}, {"job": None}, {"client": "x" * 32}, {"federation": "A"},
        {"set": "eu/0"}, {"set": ""}, {"model": "../etc"}, {"model": "a/b"}, {"model": "a" * 129},
        {"model_digest": "ab"}, {"protocol": "x y"}, {"batch": 0}, {"batch": True}, {"batch": 1.0},
        {"batch": "4"}, {"batch": 1 << 17}, {"length": -1}, {"length": 10**30}, {"output": "weights"},
        {"output": None}, {"range_check": 1}, {"range_check": "true"}, {"purpose": "a\nb"}, {"purpose": "x" * 64},
        {"jurisdictions": ["ie"]}, {"jurisdictions": "IE"}, {"jurisdictions": ["IE"] * 65},
        {"jurisdictions": [["IE"]]}, {"retention": ""}, {"issued_ms": 0}, {"issued_ms": 1 << 60},
        {"expires_ms": None}, {"inputs": []}, {"inputs": ["ab" * 32] * 4}, {"inputs": ["ab" * 31] * 3},
        {"inputs": [1, 2, 3]}, {"subject": "someone"},
    ],
)  # fmt: skip
def test_what_is_out_of_form_is_refused(change: dict[str, Any]) -> None:
    value = GOOD.to_json() | change
    for given_as in (value, json.dumps(value)):
        with pytest.raises(AuthorisationError) as caught:
            Authorisation.from_json(given_as)
        assert caught.value.code == "malformed"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Authorisation)])
def test_every_field_must_be_there(field: str) -> None:
    value = GOOD.to_json()
    del value[field]
    with pytest.raises(AuthorisationError, match=f"lacks {field}"):
        Authorisation.from_json(value)


@pytest.mark.parametrize("text", ["[]", "null", "{", "1", "", "[" * 9000, b"\xff", '{"job":1,"job":2}'])
def test_what_is_no_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(AuthorisationError):
        Authorisation.from_json(text)


def test_a_huge_one_is_refused_before_it_is_read() -> None:
    with pytest.raises(AuthorisationError, match=f"more than {MAX_BYTES} bytes"):
        Authorisation.from_json(b"[" * (MAX_BYTES + 1))
    longest = an_authorisation(
        federation="f" * 63, set="s" * 63, model="m" * 128, protocol="p" * 128, purpose="u" * 63, retention="r" * 63,
        jurisdictions=("US-CA",) * 64, batch=1 << 16, length=1 << 16, range_check=False,
    )  # fmt: skip
    assert len(json.dumps(longest.to_json(), indent=4)) < MAX_BYTES


@pytest.mark.parametrize("lifetime", [0, -1, 60_001, 10**9])
def test_a_lifetime_of_at_most_a_minute(lifetime: int) -> None:
    with pytest.raises(AuthorisationError) as caught:
        an_authorisation(expires_ms=ISSUED + lifetime)
    assert caught.value.code == "lifetime"


def test_errors_do_not_repeat_the_content() -> None:
    for value in (GOOD.to_json() | {"purpose": "canary canary"}, GOOD.to_json() | {"canary": 1}):
        with pytest.raises(AuthorisationError) as caught:
            Authorisation.from_json(value)
        assert "canary" not in str(caught.value)


CHANGES: dict[str, Any] = {
    "job": "ff" * 16, "federation": "other", "set": "us", "model": "another", "model_digest": "cd" * 32,
    "protocol": "malicious_3pc", "batch": 5, "length": 64, "output": "hidden", "range_check": False,
    "purpose": "analytics", "jurisdictions": (), "retention": "year", "issued_ms": ISSUED + 1,
    "expires_ms": ISSUED + 59_999, "inputs": GOOD.inputs[::-1],
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_no_field_may_change_after_signing(field: str) -> None:
    changed = dataclasses.replace(GOOD, **{field: CHANGES[field]})
    with pytest.raises(AuthorisationError) as caught:
        verify(changed, SIGNATURE, KEY.public)
    assert caught.value.code == "bad_signature"


def test_every_field_is_in_the_table_above() -> None:
    assert CHANGES.keys() | {"client"} == {field.name for field in dataclasses.fields(Authorisation)}


def test_signatures_of_others() -> None:
    verify(GOOD, SIGNATURE, KEY.public)
    other = SigningKey.generate()
    with pytest.raises(AuthorisationError) as caught:
        verify(GOOD, SIGNATURE, other.public)
    assert caught.value.code == "wrong_key"
    with pytest.raises(AuthorisationError) as caught:
        other.sign(GOOD)
    assert caught.value.code == "wrong_key"
    forged = dataclasses.replace(GOOD, client=other.id)
    with pytest.raises(AuthorisationError) as caught:
        verify(forged, SIGNATURE, other.public)
    assert caught.value.code == "bad_signature"
    for bad in (b"", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(64), SIGNATURE[::-1]):
        with pytest.raises(AuthorisationError) as caught:
            verify(GOOD, bad, KEY.public)
        assert caught.value.code == "bad_signature"


def test_a_signature_over_the_bare_json_is_none() -> None:
    """The purpose is signed too: what a key signs elsewhere is never an authorisation."""
    with pytest.raises(AuthorisationError):
        verify(GOOD, KEY._object.sign(GOOD.canonical()), KEY.public)
    with pytest.raises(AuthorisationError):
        verify(GOOD, KEY._object.sign(GOOD.digest()), KEY.public)


def test_envelopes_open_for_their_party() -> None:
    envelopes = seal_envelopes(GOOD, CONTENTS, TO)
    for index, keys in enumerate(PARTIES):
        assert open_envelope(GOOD, index, envelopes[index], keys) == CONTENTS[index]


@pytest.mark.parametrize(("index", "taken"), [(i, j) for i in range(3) for j in range(3) if i != j])
def test_an_envelope_moved_to_another_party(index: int, taken: int) -> None:
    envelopes = seal_envelopes(GOOD, CONTENTS, TO)
    with pytest.raises(SealError, match="not one of ours"):
        open_envelope(GOOD, index, envelopes[taken], PARTIES[index])


def test_an_envelope_for_another_index_of_the_same_operator() -> None:
    """An operator with one key for two places would still not open the one's envelope as the other."""
    envelopes = seal_envelopes(GOOD, CONTENTS, [TO[0]] * 3)
    with pytest.raises(SealError, match="do not open"):
        open_envelope(GOOD, 0, envelopes[1], PARTIES[0])


@pytest.mark.parametrize("field", [name for name in CHANGES if name != "inputs"])
def test_an_envelope_moved_to_another_job(field: str) -> None:
    envelopes = seal_envelopes(GOOD, CONTENTS, TO)
    other = dataclasses.replace(GOOD, **{field: CHANGES[field]})
    with pytest.raises(SealError, match="do not open"):
        open_envelope(other, 0, envelopes[0], PARTIES[0])


def test_an_envelope_made_by_the_gateway_itself() -> None:
    """It knows keys and digest, so its own envelope opens; but its content is not the one that was authorised."""
    own = seal(b"shares of my choice", TO[1], ENVELOPE, GOOD.digest(), bytes([1]))
    with pytest.raises(SealError, match="not the one that was authorised"):
        open_envelope(GOOD, 1, own, PARTIES[1])


def test_sealing_what_was_not_authorised() -> None:
    with pytest.raises(SealError, match="not those that were authorised"):
        seal_envelopes(GOOD, CONTENTS[::-1], TO)
    with pytest.raises(SealError, match="three"):
        seal_envelopes(GOOD, CONTENTS[:2], TO[:2])


def test_the_signing_key_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "app.key"
    KEY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = SigningKey.load(path)
    assert (loaded.id, loaded.public) == (KEY.id, KEY.public) and KEY.id == key_id(KEY.public)
    with pytest.raises(ConfigError, match="exists"):
        KEY.save(path)
    whole = path.read_bytes()
    for damage in (b"", whole[:-5], whole.replace(KEY.public.hex().encode(), b"00" * 32)):
        path.write_bytes(damage)
        with pytest.raises(ConfigError) as caught:
            SigningKey.load(path)
        assert KEY.private.reveal().hex() not in str(caught.value)
    path.write_bytes(whole)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        SigningKey.load(path)
    assert KEY.private.reveal().hex() not in repr(KEY)
