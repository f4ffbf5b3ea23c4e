"""Environments that misbehave or observe oddly, registered when a manifest imports this module."""

import os
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


class Broken(gymnasium.Env):
    """Keeps one of the promises of a manifest not; which one is chosen by keyword."""

    action_space = spaces.Box(-1.0, 1.0, (1,))
    observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def __init__(self, fault: str = "") -> None:
        """Plans the fault: `chance`, `memory`, `deaf`, `space` or none."""
        self.fault = fault
        self.position = 0.0
        self.episodes = 0
        if fault == "space":
            self.observation_space = spaces.Box(-np.inf, np.inf, (3,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts at a place of the seed's own; a deaf one always at the same."""
        super().reset(seed=0 if self.fault == "deaf" else seed)
        self.position = float(self.np_random.uniform())
        if self.fault == "memory":
            # What an episode leaves behind reaches into the next.
            self.position += 1e-12 * self.episodes
        self.episodes += 1
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves by the action, or by what nobody knows."""
        self.position += float(action[0])
        if self.fault == "chance":
            self.position += int.from_bytes(os.urandom(4), "little") * 1e-12
        return self._observe(), -abs(self.position), False, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.position, 0.0])


gymnasium.register("robo-tests/Broken-v0", entry_point=Broken)
