"""A made environment with everything needed to use it many times, and the cache of those that are free."""

import importlib
from collections.abc import Mapping
from typing import Any

from robo_eval_env import hooks
from robo_eval_env.actions import ActionMap
from robo_eval_env.errors import BadRequestError, ImportFailedError, WorkerError, describe
from robo_eval_env.observations import StateView
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Camera, Render, Simulation


class Environment:
    """One instance of an environment; episodes use it one after the other."""

    def __init__(self, simulation: Simulation, hook: hooks.Hook, studio: Studio) -> None:
        """Makes the environment.

        Raises:
            WorkerError: It cannot be made, or does not fit the manifest.
        """
        self.simulation = simulation
        self._hook = hook
        self._studio = studio
        self._env = hook.make(simulation)
        self.actions = ActionMap(simulation.action, self._env.action_space, simulation.environment)
        self.state = StateView(simulation.observation.state, simulation.environment, self._pose)

    def _pose(self, name: str) -> Any:
        """Measures the end effector, if the family's hook can."""
        measure = getattr(self._hook, "pose", None)
        if measure is None:
            raise BadRequestError(
                f"`{self.simulation.environment}.observation` takes the pose `{name}`, which its hook does not measure"
            )
        return measure(self._env, name)

    @property
    def action_space(self) -> Any:
        """What the simulator takes."""
        return self._env.action_space

    @property
    def observation_space(self) -> Any:
        """What the simulator says that it returns."""
        return self._env.observation_space

    def reset(self, seed: int) -> Any:
        """Starts the scene of a seed; nothing of earlier episodes remains."""
        return self._hook.reset(self._env, seed)

    def step(self, values: list[float]) -> tuple[Any, Any, bool, bool, Mapping[str, Any]]:
        """Steps with numbers that `actions.check` has passed."""
        return self._env.step(self.actions.apply(values))

    def raw_step(self, action: Any) -> tuple[Any, Any, bool, bool, Mapping[str, Any]]:
        """Steps with an action of the simulator's own kind, as the bench does."""
        return self._env.step(action)

    def images(self) -> dict[str, bytes]:
        """Draws what the cameras of the manifest see, as raw RGB from top to bottom."""
        cameras = self.simulation.observation.cameras
        if not cameras:
            return {}
        scene = self._hook.scene(self._env)
        return self._studio.draw(self.simulation.environment, scene, cameras, self.simulation.observation.render)

    def picture(self, camera: str | None, width: int, height: int) -> bytes:
        """Draws the scene for a person: by that camera, the first one, or from a distance if there is none."""
        scene = self._hook.scene(self._env)
        view = {"film": Camera(camera or scene.first_camera(), width, height)}
        return self._studio.draw(f"{self.simulation.environment} film", scene, view, Render(msaa=4))["film"]

    def packages(self) -> frozenset[str]:
        """Returns the distributions whose versions decide what this environment does."""
        roots = {type(self._env.unwrapped).__module__, *self.simulation.gymnasium.imports}
        return frozenset(root.partition(".")[0] for root in roots) | frozenset(self._hook.packages)

    def close(self) -> None:
        """Frees the simulator; an environment that broke may fail to close, which no longer matters."""
        try:
            self._env.close()
        except Exception as error:
            raise WorkerError(f"{self.simulation.environment}: {describe(error)}") from error


class Pool:
    """The environments of a worker: those in use belong to episodes, the free ones wait here."""

    def __init__(self, simulations: list[Simulation], studio: Studio) -> None:
        """Imports what the simulations need; makes no environment yet.

        Raises:
            WorkerError: A module or a hook is missing or broken.
        """
        self._studio = studio
        self._simulations = {simulation.environment: simulation for simulation in simulations}
        self._hooks: dict[str, hooks.Hook] = {}
        self._free: dict[str, list[Environment]] = {name: [] for name in self._simulations}
        for name, simulation in self._simulations.items():
            for module in simulation.gymnasium.imports:
                import_module(module)
            self._hooks[name] = hooks.load(simulation.gymnasium.hook)

    def __contains__(self, environment: str) -> bool:
        """Whether an environment of this name was opened."""
        return environment in self._simulations

    def take(self, environment: str) -> Environment:
        """Returns a free instance, or makes one."""
        free = self._free[environment]
        if free:
            return free.pop()
        return Environment(self._simulations[environment], self._hooks[environment], self._studio)

    def give_back(self, environment: Environment) -> None:
        """Keeps an instance for the next episode."""
        self._free[environment.simulation.environment].append(environment)


def import_module(name: str) -> None:
    """Imports a module that a manifest names.

    Raises:
        ImportFailedError: It cannot be imported.
    """
    try:
        importlib.import_module(name)
    except Exception as error:
        # Broken packages raise anything at import time, not only ImportError.
        raise ImportFailedError(f"cannot import `{name}`: {describe(error)}") from error
