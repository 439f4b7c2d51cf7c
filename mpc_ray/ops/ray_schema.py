"""Ray's own opinion of a file for ``ray up``."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from typing import Any


def refusal(config: dict[str, Any]) -> str | None:
    """Why Ray would refuse the file, in one line; None if it would not. Raises ImportError where Ray is missing.

    Ray fills in defaults first, as ``ray up`` does; nothing is asked of any cloud.
    """
    import click
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)  # how it fills in defaults is no news
    said = io.StringIO()  # Ray prints why it gives up, and raises an exception without a text
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        return " ".join(f"{'.'.join(map(str, error.absolute_path))}: {error.message}".lstrip(": ").split())
    except KeyError as error:
        return f"the file lacks {error.args[0] if error.args else 'a key'}"
    except (
        click.ClickException,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,
    ) as error:
        return " ".join(f"{said.getvalue()} {error}".split()) or type(error).__name__
    return None
