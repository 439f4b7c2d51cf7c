"""Which sets a gateway leads, and their leaders in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pydantic import ValidationError

from mpc_ray.errors import ConfigError
from mpc_ray.serve.awaited import led
from mpc_ray.serve.config import GatewayConfig, SetSettings
from mpc_ray.serve.interface import Triples
from mpc_ray.serve.published import Published
from mpc_ray.serve.regions import Healing, RegionPolicy, SetPlace, regional
from mpc_ray.trust.dates import check_dates
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import open_folder, open_gateway


def chosen_sets(config: GatewayConfig, directory: Directory) -> tuple[SetSettings, ...]:
    """The sets to lead, in order of preference. Raises ConfigError for one that the directory lacks, or for none."""
    there = directory.sets()
    if missing := [one.name for one in config.sets if one.name not in there]:
        raise ConfigError(
            f"the directory has no whole set {missing[0]}",
            remedy=f"it has {', '.join(there) or 'none'}; correct `sets`, or install the newest directory",
        )
    chosen = config.sets or tuple(SetSettings(name=name) for name in there)
    if not chosen:
        raise ConfigError(
            "the directory has no whole set", remedy="have three parties of one set signed first"
        )
    return chosen


def sets_to_lead(config: GatewayConfig) -> tuple[SetSettings, ...]:
    """``chosen_sets`` of the installed directory, once the gateway's own folder and certificate are in order.

    Raises ConfigError (a party's folder, no certificate yet), CertificateError (expired, or another authority's).
    """
    folder = open_gateway(config.folder)
    directory = folder.directory()
    check_dates(config.folder / "tls.pem", f"the certificate of this gateway ({folder.record.place})")
    return chosen_sets(config, directory)


def leader(config: GatewayConfig, one: SetSettings, *, triples: int) -> Triples:
    """A leader of one set over mutual TLS, not started. It keeps ``triples`` triples open."""
    from mpc_ray.serve import triple

    folder = open_folder(config.folder)
    settings = config.batching.model_dump() | {"triples": triples}
    return triple.leader(config.folder, folder.directory(), one.name, models=one.models, settings=settings)


def leaders(config: GatewayConfig) -> dict[str, Triples]:
    """Leaders of all sets in this process, none started; of a set that the directory does not let us use now, one that
    waits (``serve.awaited``). Raises ConfigError, CertificateError (of the directory itself).
    """
    return {
        one.name: led(one.name, config.folder, partial(leader, config, one, triples=one.max_triples))
        for one in sets_to_lead(config)
    }


def arranged(
    config: GatewayConfig, published: Published, triples: Mapping[str, Triples]
) -> tuple[RegionPolicy, dict[str, Triples]]:
    """The policy on regions, and the sets of ``triples`` behind it in the order in which callers here should try them.

    Raises ConfigError where the policy names a set that the directory lacks.
    """
    wanted = config.regions
    places = {
        name: SetPlace(region=place.regions[0], jurisdictions=tuple(dict.fromkeys(place.jurisdictions)))
        for name, place in published.places.items()
    }
    try:
        policy = RegionPolicy(
            sets=places,
            prefer=wanted.prefer,
            fail_over=wanted.fail_over or tuple(name for name in triples if name in places),
            residency=wanted.residency,
            healing=Healing(failures=wanted.failures, pause_s=wanted.pause_s, max_pause_s=wanted.max_pause_s),
        )
    except ValidationError as error:
        text = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"regions: {text}", remedy="correct `regions`, or install the newest directory"
        ) from None
    region = wanted.here or ""
    behind = regional(policy, triples, region)
    return policy, {name: behind[name] for name in policy.order(region) if name in behind}


def null_leader(config: GatewayConfig, one: SetSettings, *, triples: int) -> Triples:
    """A leader that computes nothing, for measuring what the gateway itself costs (``serve.null``)."""
    from mpc_ray.serve.null import NullTriple

    model = {"name": "null", "digest": "0" * 64, "lengths": [16, 32, 64, 128], "hidden": 384}
    return NullTriple(one.name, models=(model,))
