"""How families that cannot be made, seeded or drawn the standard way are handled: one module each.

A hook is a module of this package with a function `hook()` that returns a `Hook`; a manifest names it by the
module's name. Modules load when a manifest asks for them, so a worker imports only the simulators it runs.
"""

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from robo_eval_env.errors import BadRequestError, ImportFailedError, describe

if TYPE_CHECKING:
    from robo_eval_env.scenes import Scene
    from robo_eval_env.specification import Simulation

STANDARD = "standard"
"""The hook of families that name none."""


class Hook(Protocol):
    """What differs between families.

    A hook may also have `pose(env, name)`, which measures the end effector for a manifest that shows its pose:
    `position`, `orientation` (x, y, z, w), `linear_velocity` or `angular_velocity`, in the world frame.
    """

    packages: tuple[str, ...]
    """Distributions, next to the environment's own, whose change would change results."""

    def make(self, simulation: "Simulation") -> Any:
        """Returns a new Gymnasium environment."""

    def reset(self, env: Any, seed: int) -> Any:
        """Starts the scene of a seed and returns its first observation.

        Equal seeds give equal scenes whatever ran before, in this environment or elsewhere.
        """

    def scene(self, env: Any) -> "Scene":
        """Returns what cameras look at."""


def load(name: str | None) -> Hook:
    """Returns the hook of a name.

    Raises:
        BadRequestError: There is no such hook.
        ImportFailedError: Its simulator cannot be imported.
    """
    module = f"{__name__}.{name or STANDARD}"
    try:
        return importlib.import_module(module).hook()
    except ModuleNotFoundError as error:
        if error.name == module:
            raise BadRequestError(f"there is no hook `{name}`") from error
        raise ImportFailedError(f"hook `{name}` needs `{error.name}`, which is not installed") from error
    except Exception as error:
        raise ImportFailedError(f"cannot load hook `{name}`: {describe(error)}") from error
