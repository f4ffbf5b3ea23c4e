"""Families that follow Gymnasium's contract: registered ids, seeds given to `reset`, MuJoCo models for cameras."""

from typing import Any

import gymnasium

from robo_eval_env.errors import BadRequestError, ImportFailedError, SimulatorError, describe
from robo_eval_env.scenes import Scene, Turn
from robo_eval_env.specification import Simulation


class StandardHook:
    """Makes environments by their registered id."""

    packages = ("gymnasium", "numpy")

    def make(self, simulation: Simulation) -> gymnasium.Env:
        """Makes the registered environment; the limit of steps is the manifest's, not the registry's."""
        wanted = simulation.gymnasium
        settings = {"max_episode_steps": simulation.max_steps, "disable_env_checker": True, **wanted.kwargs}
        try:
            return gymnasium.make(wanted.make, **settings)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ImportFailedError(f"{simulation.environment}: {describe(error)}") from error
        except (gymnasium.error.UnregisteredEnv, TypeError) as error:
            raise BadRequestError(f"{simulation.environment}: {describe(error)}") from error
        except Exception as error:
            raise SimulatorError(f"{simulation.environment}: {describe(error)}") from error

    def reset(self, env: gymnasium.Env, seed: int) -> Any:
        """Resets with the seed."""
        observation, _ = env.reset(seed=seed)
        return observation

    def scene(self, env: gymnasium.Env) -> Scene:
        """Takes the MuJoCo model, which is the only kind of scene that is drawn without a hook."""
        inner = env.unwrapped
        model, data = getattr(inner, "model", None), getattr(inner, "data", None)
        if model is None or data is None:
            raise BadRequestError(f"{type(inner).__name__} has no MuJoCo model: its cameras need a hook")
        return Scene(model=model, data=data, turn=Turn.NONE)


def hook() -> StandardHook:
    """Returns this family's hook."""
    return StandardHook()
