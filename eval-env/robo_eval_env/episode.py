"""One episode of one environment: steps it, sums it up and hashes its trajectory."""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from robo_eval_env.environment import Environment
from robo_eval_env.errors import BadRequestError, SimulatorError, WorkerError, describe
from robo_eval_env.judge import Judge
from robo_eval_env.observations import flatten


class View(NamedTuple):
    """What a miner may see after a reset or a step."""

    observation: list[float]
    images: dict[str, bytes]


_record_outcome = struct.Struct("<d?").pack


@dataclass(frozen=True, slots=True)
class Ending:
    """How an episode ended."""

    steps: int
    total: float
    success: bool
    terminated: bool
    trajectory_hash: str

    def to_json(self) -> dict[str, Any]:
        """Returns the `end` object of the protocol."""
        return {
            "steps": self.steps,
            "return": self.total,
            "success": self.success,
            "terminated": self.terminated,
            "trajectory_hash": self.trajectory_hash,
        }


class Episode:
    """A running episode. After an error of the simulator its environment must not be used again."""

    def __init__(self, environment: Environment, seed: int) -> None:
        """Prepares an episode that `start` begins."""
        self.environment = environment
        self._seed = seed
        self._simulation = environment.simulation
        self._judge = Judge(self._simulation.success)
        self._hash = hashlib.sha256(struct.pack("<I", seed))
        self._record_action = struct.Struct(f"<{self._simulation.action.size}d").pack
        self._steps = 0
        self._total = 0.0

    def start(self) -> View:
        """Resets the environment and returns its first view."""
        with simulating(self._simulation.environment):
            observation = self.environment.reset(self._seed)
            raw = _finite(flatten(observation))
            self._hash.update(raw.tobytes())
            view = self._view(observation, raw)
        size = self._simulation.observation.size
        if size is not None and len(view.observation) != size:
            raise BadRequestError(
                f"`{self._simulation.environment}.observation.size` is {size}, "
                f"but the simulator shows {len(view.observation)} numbers"
            )
        return view

    def step(self, values: Any) -> tuple[View, float, Ending | None]:
        """Takes a step; returns what is seen, its reward, and the ending if there is one.

        Raises:
            BadRequestError: The action is not one; the episode stays as it was.
            SimulatorError: The simulator failed.
        """
        action = self.environment.actions.check(values)
        with simulating(self._simulation.environment):
            observation, reward, terminated, truncated, info = self.environment.step(action)
            reward = float(reward)
            raw = _finite(flatten(observation))
            if not math.isfinite(reward):
                raise SimulatorError(f"reward is {reward}")
            self._steps += 1
            self._total += reward
            self._hash.update(self._record_action(*action) + raw.tobytes() + _record_outcome(reward, terminated))
            self._judge.see(reward, self._total, info)
            ending = self._ending(terminated=bool(terminated), truncated=bool(truncated))
            return self._view(observation, raw), reward, ending

    def _ending(self, *, terminated: bool, truncated: bool) -> Ending | None:
        """Returns the ending if the episode has come to it."""
        ended = (
            terminated
            or truncated
            or self._steps >= self._simulation.max_steps
            or (self._simulation.stop_on_success and self._judge.succeeded)
        )
        if not ended:
            return None
        success = self._judge.finish(terminated=terminated)
        return Ending(self._steps, self._total, success, terminated, self._hash.hexdigest())

    def _view(self, observation: Any, raw: np.ndarray) -> View:
        """Selects what may be seen and draws the images."""
        return View(self.environment.state.select(observation, raw), self.environment.images())


class simulating:  # noqa: N801 - reads as a statement
    """Turns whatever a simulator raises into a `SimulatorError` that names the environment."""

    __slots__ = ("_environment",)

    def __init__(self, environment: str) -> None:
        """Names the environment at work."""
        self._environment = environment

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Translates exceptions; interrupts and exits pass."""
        if isinstance(error, Exception) and not isinstance(error, WorkerError):
            raise SimulatorError(f"{self._environment}: {describe(error)}") from error


def _finite(raw: np.ndarray) -> np.ndarray:
    """Refuses an observation that holds something that is not a number."""
    if not np.isfinite(raw).all():
        raise SimulatorError(f"observation holds {raw[~np.isfinite(raw)][0]}")
    return raw
