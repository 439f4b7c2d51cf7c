"""What is wrong with a file for ``ray up``: unknown keys, gaps to fill, doors left open, labels that contradict."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mpc_ray import wording
from mpc_ray.errors import ConfigError
from mpc_ray.ops import clusters
from mpc_ray.ops.cluster_rules import Problem, rules
from mpc_ray.ops.clusters import FILL_ME, Cluster

_FILE = "name a file for `ray up`, such as cluster.yaml"


class _Loader(yaml.SafeLoader):
    """A key given twice is an error: YAML would keep the second in silence, of two sets of rules too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: {key} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path) -> dict[str, Any]:
    """The file as YAML. Raises ConfigError: no file, no YAML, no mapping, a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}", remedy=_FILE) from None
    try:
        config = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError(f"{path} is no YAML{line}", remedy="correct the file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}, {error.cause}", remedy="keep one of the two") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no mapping", remedy=_FILE)
    return config


def unfilled(config: Any, where: str = "") -> list[str]:
    """Paths of all values that still say FILL-ME."""
    items: list[tuple[Any, Any]] = []
    if isinstance(config, dict):
        items = list(config.items())
    elif isinstance(config, list):
        items = list(enumerate(config))
    if items:
        return [path for key, value in items for path in unfilled(value, f"{where}.{key}".lstrip("."))]
    return [where] if isinstance(config, str) and FILL_ME in config else []


def parsed(config: dict[str, Any]) -> Cluster:
    """The file as its model. Raises ConfigError with the first of ``problems``."""
    found = schema(config)
    if found:
        raise ConfigError(f"{found[0].where}: {found[0].what}", remedy=found[0].remedy)
    model = clusters.model_of(config)
    assert model is not None
    return model.model_validate(config)  # type: ignore[return-value]


def problems(config: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with a file, what is to be filled in included; an empty list: `ray up` may run."""
    found = schema(config)
    if not found:
        found = list(rules(parsed(config)))
    return found + [
        Problem(where, "is still to be filled in", "see the comment beside it") for where in unfilled(config)
    ]


# --- keys and types ------------------------------------------------------------------------------------------------


def schema(config: dict[str, Any]) -> list[Problem]:
    """What our models refuse."""
    model = clusters.model_of(config)
    if model is None:
        known = ", ".join(clusters.MODELS)
        return [Problem("provider.type", "names no provider that these files know", f"one of {known}")]
    provider = config["provider"]
    found = []
    if provider["type"] == "aws" and "security_group" in provider:
        found.append(
            Problem(
                "provider.security_group",
                "Ray adds port 22, open to the whole world, to a group that it makes or fills",
                "leave it out: `mpc-ray cluster firewall FILE --apply` makes the group, SecurityGroupIds names it",
            )
        )
    try:
        model.model_validate(
            {**config, "provider": {k: v for k, v in provider.items() if k != "security_group"}}
        )
    except ValidationError as error:
        found += [_problem(model, detail) for detail in error.errors(include_url=False)]
    return found


def _problem(model: type[BaseModel], detail: Any) -> Problem:
    path = [str(part) for part in detail["loc"]]
    if path[:2] == ["metadata", "mpc_ray"] and len(path) > 2:
        del path[2]  # which member of the union it was
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _siblings(model, path[:-1]), n=1)
        return Problem(
            ".".join(path), "is no setting that is known here", f"{near[0]} is meant?" if near else ""
        )
    if detail["type"] == "missing":
        return Problem(".".join(path), "is missing")
    return Problem(".".join(path), wording.plain(detail))


def _siblings(model: Any, path: list[str]) -> list[str]:
    """The keys that a model has at `path`."""
    for part in path:
        model = _inner(model, part)
    return [name for kind in _models(model) for name in kind.model_fields]


def _inner(annotation: Any, part: str) -> Any:
    for kind in _models(annotation):
        if part in kind.model_fields:
            return kind.model_fields[part].annotation
    return annotation  # the name of a node type, or a number in a list


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
