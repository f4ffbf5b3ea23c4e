"""Decides whether an episode is a success, from its rewards and `info` alone.

An `expression` is judged by the environment server, which has the language that it is written in.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_eval_env.errors import SimulatorError
from robo_eval_env.specification import Success


class Judge:
    """Watches one episode. `succeeded` is its verdict so far: final once the episode has ended."""

    def __init__(self, success: Success) -> None:
        """Starts with an episode that has no steps."""
        self._rule = success.rule
        self._argument = success.argument
        self._latched = success.when == "any" and success.rule != "survive"
        self._key_seen = False
        self.succeeded = False

    def see(self, reward: float, total: float, info: Mapping[str, Any]) -> None:
        """Takes in a step: its reward, the sum of rewards so far, and what the simulator says about it."""
        if self._latched and self.succeeded:
            return
        if self._rule == "info":
            self.succeeded = self._flag(info)
        elif self._rule == "return_at_least":
            self.succeeded = total >= self._argument
        elif self._rule == "reward_at_least":
            self.succeeded = reward >= self._argument

    def finish(self, *, terminated: bool) -> bool:
        """Returns the verdict on an episode that ended, by itself or by its limit of steps.

        Raises:
            SimulatorError: Success hangs on a key that `info` never had, so nobody could ever succeed.
        """
        if self._rule == "survive":
            self.succeeded = not terminated
        elif self._rule == "info" and not self._key_seen:
            raise SimulatorError(f"`info` had no `{self._argument}` at any step, yet success hangs on it")
        return self.succeeded

    def _flag(self, info: Mapping[str, Any]) -> bool:
        """Reads the key that success hangs on; a step without it is no success."""
        value = info.get(self._argument)
        if value is None:
            return False
        self._key_seen = True
        if not isinstance(value, float | bool | int):
            value = np.asarray(value, dtype=np.float64).ravel()[0]
        return float(value) > 0.5
