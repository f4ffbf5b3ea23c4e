"""The quick steps of the hook give what MetaWorld's own steps give: observations, rewards and `info`, bit by bit."""

from typing import Any

import numpy as np
import pytest

from robo_eval_env.environment import Environment
from robo_eval_env.hooks._metaworld_steps import QuickSteps

from .conftest import TASKS, metaworld
from .test_metaworld_episodes import take, uncompiled

SEEDS = (3, 11)
STEPS = 160
GRIPPED = ("push-v3", "pick-place-v3")
"""Tasks whose object the policy below gets between the fingers."""


def policy(step: int, env: Any, dice: np.random.Generator) -> np.ndarray:
    """Goes above the object, down to it, grips and lifts it, with some noise: contacts are what could differ most."""
    target = env._get_pos_objects()[:3] + np.array([0.0, 0.0, 0.1 if step < 40 else 0.0])
    move = 10.0 * (target - env.tcp_center)
    action = np.array([*move, -1.0 if step < 80 else 1.0]) + 0.05 * dice.standard_normal(4)
    if step > 110:
        action[:3] = [0.1, 0.3, 0.6]
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def trace(env: Any, first: np.ndarray, seed: int) -> tuple[list[bytes], int]:
    """Plays; returns every number that came back, and at how many of some steps an object was held."""
    dice = np.random.default_rng(seed)
    told, held = [first.tobytes()], 0
    for step in range(STEPS):
        observation, reward, terminated, truncated, info = env.step(policy(step, env, dice))
        numbers = [float(info[key]) for key in sorted(info)]
        told.append(observation.tobytes() + np.array([reward, terminated, truncated, *numbers]).tobytes())
        # Asking for every body of the model takes longer than the step.
        held += step % 10 == 9 and any(env.touching_object(geom) for geom in range(env.model.ngeom))
    return told, held


def hooked(task: str, hook: str) -> Environment:
    """Returns a task with one of the two hooks."""
    gymnasium = {**metaworld(task)["gymnasium"], "hook": hook}
    return take(task, gymnasium=gymnasium)


@pytest.mark.parametrize("task", TASKS)
def test_quick_steps_are_the_same_steps(task: str) -> None:
    """For two scenes of each task, against MetaWorld by its own means alone."""
    environment = hooked(task, "metaworld")
    assert isinstance(environment._env, QuickSteps)
    for seed in SEEDS:
        plain, first = uncompiled(task, seed)
        expected, held = trace(plain, first, seed)
        assert held > 0 or task not in GRIPPED
        assert trace(environment._env, environment.reset(seed), seed) == (expected, held)


def test_the_plain_hook_is_metaworld_itself() -> None:
    """The other side of the comparison has none of it."""
    environment = hooked("push-v3", "metaworld_plain")
    assert not isinstance(environment._env, QuickSteps)
    plain, first = uncompiled("push-v3", 3)
    assert trace(environment._env, environment.reset(3), 3) == trace(plain, first, 3)
