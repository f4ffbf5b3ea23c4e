"""Turns a miner's numbers into what an environment's `step` takes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from robo_eval_env.errors import BadRequestError
from robo_eval_env.specification import Action

Mapper = Callable[[list[float]], Any]


class ActionMap:
    """The way from an action of the manifest to one of a Gymnasium action space."""

    def __init__(self, action: Action, space: spaces.Space, environment: str) -> None:
        """Checks that the two fit.

        Raises:
            BadRequestError: The manifest's action cannot be mapped to the space.
        """
        self._action = action
        self._to_space = _mapper(action, space, environment)

    def check(self, values: Any) -> list[float]:
        """Returns the numbers of a request.

        Raises:
            BadRequestError: They are too few, too many, not finite, or outside a range that refuses.
        """
        if not isinstance(values, list) or len(values) != self._action.size:
            raise BadRequestError(f"`action` must be a list of {self._action.size} numbers")
        low, high = self._action.low, self._action.high
        refuse = self._action.out_of_range == "refuse"
        for value in values:
            if isinstance(value, bool) or not isinstance(value, float | int) or not math.isfinite(value):
                raise BadRequestError(f"`action` must hold finite numbers, not {value!r}")
            if refuse and not low <= value <= high:
                raise BadRequestError(f"`action` must lie within {low} and {high}, not {value!r}")
        if self._action.kind == "discrete" and not all(float(value).is_integer() for value in values):
            raise BadRequestError(f"`action` must be a whole number, not {values[0]!r}")
        return values

    def apply(self, values: list[float]) -> Any:
        """Returns the simulator's action for numbers that `check` has passed."""
        low, high = self._action.low, self._action.high
        return self._to_space([low if value < low else high if value > high else value for value in values])


def _mapper(action: Action, space: spaces.Space, environment: str) -> Mapper:
    """Chooses the mapping for an action's kind."""
    where = f"`{environment}.action`"
    if action.kind == "discrete":
        if not isinstance(space, spaces.Discrete):
            raise BadRequestError(f"{where} is discrete, but the simulator takes {space}")
        if action.low < 0 or action.high > space.n - 1:
            raise BadRequestError(
                f"{where} may be {action.low} to {action.high}, but the simulator knows 0 to {space.n - 1}"
            )
        start = int(space.start)
        return lambda values: start + int(values[0])
    if not isinstance(space, spaces.Box):
        raise BadRequestError(f"{where} holds numbers, but the simulator takes {space}")
    shape, kind = space.shape, space.dtype
    if math.prod(shape) != action.size:
        raise BadRequestError(f"{where}.size is {action.size}, but the simulator takes {math.prod(shape)} numbers")
    if action.kind == "direct":
        if len(shape) == 1:
            return lambda values: np.array(values, dtype=kind)
        return lambda values: np.array(values, dtype=kind).reshape(shape)
    bottom = space.low.astype(np.float64)
    span = space.high.astype(np.float64) - bottom
    if not np.isfinite(span).all():
        raise BadRequestError(f"{where} cannot be scaled: the simulator's action space has no bounds")
    low, width = action.low, action.high - action.low
    return lambda values: (bottom + (np.array(values).reshape(shape) - low) / width * span).astype(kind)
