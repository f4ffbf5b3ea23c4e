"""MetaWorld: its registered environments ignore seeds and its cameras hang upside down.

`reset(seed=...)` does nothing there and `Meta-World/MT1` freezes one goal, so this hook makes the task's class and
switches on the one source of randomness that can be seeded. The goal stays out of the observation.
"""

import copy
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from robo_eval_env.errors import BadRequestError
from robo_eval_env.hooks._metaworld_steps import QuickSteps, quick
from robo_eval_env.scenes import Scene, Turn
from robo_eval_env.specification import Simulation


class MetaWorldHook:
    """Makes tasks by `kwargs.env_name`."""

    packages = ("gymnasium", "metaworld", "mujoco", "numpy", "scipy")

    def __init__(self, *, plain: bool = False) -> None:
        """Starts without compiled models. Plain tasks step by MetaWorld's own code alone, for comparison."""
        self._plain = plain
        self._compiled: dict[str, mujoco.MjModel] = {}

    def make(self, simulation: Simulation) -> SawyerXYZEnv:
        """Makes the task that `kwargs.env_name` names; other arguments go to its class."""
        arguments = dict(simulation.gymnasium.kwargs)
        name = arguments.pop("env_name", None)
        task = ALL_V3_ENVIRONMENTS.get(name)
        if task is None:
            raise BadRequestError(f"`{simulation.environment}`: metaworld has no task `{name}`")
        if simulation.max_steps > task.max_path_length:
            raise BadRequestError(
                f"`{simulation.environment}.max_steps` may be {task.max_path_length} at most, "
                f"not {simulation.max_steps}"
            )
        return self._compiled_once(name, task)(**arguments)

    def reset(self, env: SawyerXYZEnv, seed: int) -> Any:
        """Draws object and goal positions from the seed.

        The physics are wiped first: MetaWorld moves the arm before it does so itself.
        """
        env._partially_observable = True
        env._set_task_called = True
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        mujoco.mj_resetData(env.model, env.data)
        env.seed(seed)
        observation, _ = env.reset()
        return observation

    def scene(self, env: SawyerXYZEnv) -> Scene:
        """Returns the scene, whose images have to be turned to be upright."""
        return Scene(model=env.model, data=env.data, turn=Turn.HALF)

    def pose(self, env: SawyerXYZEnv, name: str) -> np.ndarray:
        """Measures the hand, whose position is the one that an observation begins with."""
        hand = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_BODY.value, "hand")
        if name == "position":
            return env.data.xpos[hand]
        if name == "orientation":
            w, x, y, z = env.data.xquat[hand]
            return np.array([x, y, z, w])
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(env.model, env.data, mujoco.mjtObj.mjOBJ_XBODY.value, hand, velocity, 0)
        # MuJoCo gives the rotation first.
        return velocity[:3] if name == "angular_velocity" else velocity[3:]

    def _compiled_once(self, name: str, task: type[SawyerXYZEnv]) -> type[SawyerXYZEnv]:
        """Returns the task's class, changed to copy a compiled model, which takes most of the making.

        Unless it is to be plain, it also steps quicker.
        """

        def initialize(env: SawyerXYZEnv) -> tuple[mujoco.MjModel, mujoco.MjData]:
            if name not in self._compiled:
                self._compiled[name] = mujoco.MjModel.from_xml_path(env.fullpath)
            model = copy.copy(self._compiled[name])
            return model, mujoco.MjData(model)

        own = {"_initialize_simulation": initialize, "__module__": task.__module__}
        if self._plain:
            return type(task.__name__, (task,), own)
        return type(task.__name__, (QuickSteps, task), own | quick(task))


def hook() -> MetaWorldHook:
    """Returns this family's hook."""
    return MetaWorldHook()
