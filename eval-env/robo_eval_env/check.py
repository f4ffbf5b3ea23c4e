"""Tells whether an installed environment works: imports what it is asked to and reads the versions."""

import platform
from importlib import metadata
from typing import Any

from robo_eval_env import __version__
from robo_eval_env.environment import import_module


def check(modules: list[str]) -> dict[str, Any]:
    """Imports modules and returns what was found.

    Raises:
        ImportFailedError: One of them cannot be imported.
    """
    owners = metadata.packages_distributions()
    versions: dict[str, str | None] = {}
    for module in modules:
        import_module(module)
        distributions = owners.get(module.partition(".")[0])
        versions[module] = metadata.version(distributions[0]) if distributions else None
    return {"python": platform.python_version(), "robo_eval_env": __version__, "modules": versions}
