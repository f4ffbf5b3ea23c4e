"""Environments that misbehave or observe oddly, registered when a manifest imports this module."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Tale(gymnasium.Env):
    """Its observation is a dictionary; what goes wrong, and when, is chosen by keyword."""

    observation_space = spaces.Dict({"z": spaces.Box(-1, 1, (2, 2)), "a": spaces.Dict({"b": spaces.Box(-1, 1, (1,))})})
    action_space = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float32)

    def __init__(self, fault: str = "", at: int = 3, successes: tuple[int, ...] = ()) -> None:
        """Plans a `fault` at a step, and the steps at which `info` says success."""
        self.fault, self.at, self.successes = fault, at, tuple(successes)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts anew."""
        super().reset(seed=seed)
        self.steps = 0
        print("a library that prints to standard output")
        return self._observe(0.0), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Shows the action it was given as its observation, and misbehaves as planned."""
        assert action.dtype == np.float32
        self.steps += 1
        faulty = self.steps == self.at
        if faulty and self.fault == "raise":
            raise ZeroDivisionError("the physics\nexploded")
        observation = self._observe(float(action[0]), float(action[1]))
        if faulty and self.fault == "observation":
            observation["z"][1, 1] = np.nan
        reward = float("inf") if faulty and self.fault == "reward" else float(self.steps)
        info = {} if self.fault == "info" else {"is_success": np.array([float(self.steps in self.successes)])}
        return observation, reward, faulty and self.fault == "terminate", faulty and self.fault == "truncate", info

    def _observe(self, first: float, second: float = 0.0) -> dict[str, Any]:
        return {"z": np.array([[1.0, 2.0], [3.0, float(self.steps)]]), "a": {"b": np.array([first + second * 100])}}


gymnasium.register("robo-tests/Tale-v0", entry_point=Tale)
