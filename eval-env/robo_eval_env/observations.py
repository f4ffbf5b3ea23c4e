"""Turns what a simulator returns into numbers: all of them for the hash, some of them for the miner."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robo_eval_env.errors import BadRequestError, SimulatorError
from robo_eval_env.specification import POSES, StatePart

_F64 = np.dtype("<f8")


def flatten(observation: Any) -> np.ndarray:
    """Returns an observation as one row of little-endian 64-bit floats; dictionaries in the order of their keys."""
    if isinstance(observation, Mapping):
        parts = [flatten(observation[key]) for key in sorted(observation)]
        return np.concatenate(parts) if parts else np.empty(0, _F64)
    if isinstance(observation, tuple):
        parts = [flatten(part) for part in observation]
        return np.concatenate(parts) if parts else np.empty(0, _F64)
    try:
        return np.asarray(observation, dtype=_F64).ravel()
    except (TypeError, ValueError) as error:
        raise SimulatorError(f"observation holds a {type(observation).__name__}, which is not a number") from error


class StateView:
    """The numbers that a miner may see."""

    def __init__(self, parts: tuple[StatePart, ...], environment: str, measure: Callable[[str], np.ndarray]) -> None:
        """Prepares to take `parts`, in their order; `measure` takes a pose of the end effector."""
        self._environment = environment
        self._parts = parts
        self._measure = measure
        # Nearly every family shows one piece of a flat observation: no copy of it has to be made.
        alone = parts[0] if len(parts) == 1 else None
        self._only_slice = alone.slice if alone is not None and not alone.path else None

    def select(self, observation: Any, raw: np.ndarray) -> list[float]:
        """Returns the visible numbers of an observation, whose flattened form is `raw`.

        Raises:
            BadRequestError: A part asks for a key or an index that the observation does not have.
        """
        if self._only_slice is not None:
            return self._cut(raw, self._only_slice).tolist()
        visible: list[float] = []
        for part in self._parts:
            if part.pose is not None:
                visible += self._pose(part.pose)
                continue
            numbers = flatten(self._follow(observation, part.path)) if part.path else raw
            visible += (numbers if part.slice is None else self._cut(numbers, part.slice)).tolist()
        return visible

    def _pose(self, name: str) -> list[float]:
        """Measures the end effector."""
        numbers = flatten(self._measure(name))
        if numbers.size != POSES[name] or not np.isfinite(numbers).all():
            raise SimulatorError(f"the end effector's {name} is {numbers.tolist()}")
        return numbers.tolist()

    def _cut(self, numbers: np.ndarray, bounds: tuple[int, int]) -> np.ndarray:
        """Takes `[start, end)`, all of which must be there."""
        start, end = bounds
        if end > numbers.size:
            raise BadRequestError(f"`{self._environment}.observation` takes [{start}, {end}) of {numbers.size} numbers")
        return numbers[start:end]

    def _follow(self, observation: Any, path: tuple[str, ...]) -> Any:
        """Walks keys into a dictionary observation."""
        for key in path:
            if not isinstance(observation, Mapping) or key not in observation:
                raise BadRequestError(f"`{self._environment}.observation` has no `{'.'.join(path)}`")
            observation = observation[key]
        return observation
