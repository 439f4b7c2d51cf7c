"""One party's policy: a table of what is refused, and by which word."""

from __future__ import annotations

from typing import Any

import pytest
from authorised import ISSUED, TO, an_authorisation
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mpc_ray.errors import AuthorisationError
from mpc_ray.trust.directory import PartyRecord
from mpc_ray.trust.policy import Policy

PLACES = ("IE", "DE", "US-CA")


def records(places: tuple[str, ...] = PLACES, set: str = "eu") -> list[PartyRecord]:
    return [
        PartyRecord(
            set, i, ("alpha", "beta", "gamma")[i], "somewhere", place, "h:1", "h:2", (TO[i],), 1 << 31
        )
        for i, place in enumerate(places)
    ]


def refusal(policy: dict[str, Any], job: dict[str, Any], at: int = ISSUED, **more: Any) -> str:
    """The word of the refusal, empty if there is none."""
    try:
        Policy(**policy).check(
            an_authorisation(**job),
            more.get("records", records()),
            at,
            federation=more.get("federation", "demo"),
        )
    except AuthorisationError as error:
        plain = type(error) is AuthorisationError
        if not error.remedy or plain != (error.code in ("expired", "issued_in_future")):
            raise
        return error.code
    return ""


@pytest.mark.parametrize(
    ("policy", "job", "code"),
    [
        ({}, {}, ""),
        ({}, {"federation": "other"}, "federation"),
        ({}, {"set": "us"}, "set"),
        ({}, {"protocol": "malicious_3pc"}, "protocol"),
        ({"protocols": ["malicious_3pc"]}, {}, "protocol"),
        ({"protocols": ["*"]}, {"protocol": "malicious_3pc"}, ""),
        ({"models": ["other"]}, {}, "model"),
        ({"models": ["other", "all-MiniLM-L6-v2"]}, {}, ""),
        ({"models": []}, {}, "model"),
        ({}, {"output": "hidden"}, "output"),
        ({"outputs": ["embedding", "hidden"]}, {"output": "hidden"}, ""),
        ({}, {"range_check": False}, ""),
        ({"require_range_check": True}, {"range_check": False}, "range_check"),
        ({"purposes": ["search"]}, {}, ""),
        ({"purposes": ["search"]}, {"purpose": "analytics"}, "purpose"),
        ({"purposes": ["search"]}, {"purpose": "search2"}, "purpose"),
        ({}, {"retention": "year"}, "retention"),
        ({"retention": ["job", "year"]}, {"retention": "year"}, ""),
        ({"max_batch": 3}, {}, "batch"),
        ({"max_batch": 4}, {}, ""),
        ({"max_length": 127}, {}, "length"),
        ({"max_tokens": 511}, {}, "size"),
        ({"max_tokens": 512}, {}, ""),
        ({}, {"jurisdictions": ()}, ""),
        ({}, {"jurisdictions": ("IE", "DE")}, "jurisdiction"),
        ({}, {"jurisdictions": ("IE", "DE", "US")}, ""),
        ({}, {"jurisdictions": ("IE", "DE", "US-NY")}, "jurisdiction"),
        ({}, {"jurisdictions": ("IE", "DE", "US-C")}, "jurisdiction"),
        ({"jurisdictions": ["IE", "DE"]}, {"jurisdictions": ()}, "jurisdiction"),
        ({"jurisdictions": ["IE", "DE", "US-CA"]}, {"jurisdictions": ()}, ""),
    ],
)
def test_table(policy: dict[str, Any], job: dict[str, Any], code: str) -> None:
    assert refusal(policy, job) == code


@pytest.mark.parametrize(
    ("at", "skew", "code"),
    [
        (ISSUED, 5, ""),
        (ISSUED + 60_000, 0, ""),
        (ISSUED + 60_001, 0, "expired"),
        (ISSUED + 65_000, 5, ""),
        (ISSUED + 65_001, 5, "expired"),
        (ISSUED - 1, 0, "issued_in_future"),
        (ISSUED - 5000, 5, ""),
        (ISSUED - 5001, 5, "issued_in_future"),
    ],
)
def test_times(at: int, skew: int, code: str) -> None:
    assert refusal({"clock_skew_s": skew}, {}, at) == code


@given(
    st.tuples(*[st.sampled_from(["IE", "DE", "FR", "US", "US-CA", "JP"])] * 3),
    st.lists(st.sampled_from(["IE", "DE", "FR", "US", "US-CA", "JP"]), max_size=4),
)
def test_a_job_never_runs_where_it_may_not(places: tuple[str, ...], allowed: list[str]) -> None:
    ran = refusal({}, {"jurisdictions": tuple(allowed)}, records=records(places)) == ""
    assert ran == (not allowed or all(p in allowed or p.split("-")[0] in allowed for p in places))


@pytest.mark.parametrize(
    "wrong",
    [
        {"modles": ["x"]}, {"protocols": "semi_honest_3pc"}, {"purposes": ["A B"]}, {"jurisdictions": ["Ireland"]},
        {"max_batch": 0}, {"max_batch": "4"}, {"max_batch": True}, {"clock_skew_s": 61}, {"clock_skew_s": -1},
        {"outputs": ["weights"]}, {"require_range_check": 1}, {"models": [3]}, {"models": ["a/b"]},
    ],
)  # fmt: skip
def test_a_policy_with_a_mistake_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy(**wrong)


def test_a_policy_does_not_change() -> None:
    with pytest.raises(ValidationError):
        Policy().max_batch = 10**6  # type: ignore[misc]
