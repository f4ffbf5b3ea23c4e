"""The worker's loop: requests in, answers out, in order; errors are answers too.

It talks to its parent alone, through two pipes, and knows nothing of miners, deadlines or retries.
"""

import gc
import platform
import time
from importlib import metadata
from typing import Any

from robo_eval_env.environment import Environment, Pool
from robo_eval_env.episode import Episode, View, simulating
from robo_eval_env.errors import BadRequestError, WorkerError
from robo_eval_env.fields import Fields
from robo_eval_env.frames import FrameReader, FrameWriter
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Simulation

_LARGEST_U32 = 2**32 - 1
_HOLD_SECONDS = 0.006
"""How long a finished answer may wait for others: below any latency that matters, above the cost of a write."""


class Worker:
    """Handles requests; `answer` never raises for what a request or a simulator does."""

    def __init__(self) -> None:
        """Starts closed: only `open` is understood."""
        self._pool: Pool | None = None
        self._opened: tuple[Any, dict[str, Any]] | None = None
        self._episodes: dict[int, Episode] = {}
        self._operations = {
            "open": self._open,
            "reset": self._reset,
            "step": self._step,
            "close": self._close,
        }

    def answer(self, request: Any) -> dict[str, Any]:
        """Returns the answer to a request."""
        slot = request.get("slot") if isinstance(request, dict) else None
        try:
            fields = Fields(request, "request")
            name = fields.take("op", str)
            operation = self._operations.get(name)
            if operation is None:
                raise BadRequestError(f"`op` must be one of {', '.join(self._operations)}, not `{name}`")
            return operation(fields)
        except WorkerError as error:
            return {"slot": slot, "error": {"kind": error.kind, "message": str(error)}}

    def _open(self, fields: Fields) -> dict[str, Any]:
        """Makes one environment of each simulation, so that everything wrong with them is said now."""
        wanted = fields.take("simulations", list)
        fields.finish()
        if self._opened is not None:
            if self._opened[0] != wanted:
                raise BadRequestError("the worker is already open, with other simulations")
            return self._opened[1]
        simulations = [Simulation.from_json(value) for value in wanted]
        if len({simulation.environment for simulation in simulations}) < len(simulations):
            raise BadRequestError("`simulations` names an environment twice")
        studio = Studio()
        pool = Pool(simulations, studio)
        packages: set[str] = set()
        for simulation in simulations:
            environment = pool.take(simulation.environment)
            Episode(environment, seed=0).start()
            packages |= environment.packages()
            pool.give_back(environment)
        answer = {
            "python": platform.python_version(),
            "packages": _versions(packages),
            "renderer": studio.platform,
        }
        self._pool, self._opened = pool, (wanted, answer)
        # Modules and models live as long as the worker: the collector need not look at them again.
        gc.collect()
        gc.freeze()
        return answer

    def _reset(self, fields: Fields) -> dict[str, Any]:
        """Starts an episode in a slot; one that still runs there is given up."""
        slot = fields.whole("slot", 0, _LARGEST_U32)
        name = fields.take("environment", str)
        seed = fields.whole("seed", 0, _LARGEST_U32)
        fields.finish()
        if self._pool is None:
            raise BadRequestError("the worker is not open")
        if name not in self._pool:
            raise BadRequestError(f"environment `{name}` was not opened")
        self._release(slot)
        with simulating(name):
            episode = Episode(self._pool.take(name), seed)
        try:
            view = episode.start()
        except WorkerError:
            _discard(episode.environment)
            raise
        self._episodes[slot] = episode
        return _seen(slot, view)

    def _step(self, fields: Fields) -> dict[str, Any]:
        """Takes a step in a slot."""
        slot = fields.whole("slot", 0, _LARGEST_U32)
        action = fields.take("action", list)
        fields.finish()
        episode = self._episodes.get(slot)
        if episode is None:
            raise BadRequestError(f"slot {slot} has no running episode")
        try:
            view, reward, ending = episode.step(action)
        except BadRequestError:
            raise
        except WorkerError:
            del self._episodes[slot]
            _discard(episode.environment)
            raise
        if ending is not None:
            self._release(slot)
        return _seen(slot, view) | {"reward": reward, "end": ending.to_json() if ending else None}

    def _close(self, fields: Fields) -> dict[str, Any]:
        """Gives up the episode of a slot, if it has one."""
        slot = fields.whole("slot", 0, _LARGEST_U32)
        fields.finish()
        self._release(slot)
        return {"slot": slot}

    def _release(self, slot: int) -> None:
        """Puts the environment of a slot back where the next episode finds it."""
        episode = self._episodes.pop(slot, None)
        if episode is not None and self._pool is not None:
            self._pool.give_back(episode.environment)


def serve(source: int, sink: int) -> None:
    """Answers the frames of `source` on `sink` until the input ends.

    Raises:
        StreamError: The input cannot be followed.
    """
    worker, reader, writer = Worker(), FrameReader(source), FrameWriter(sink)
    while reader.wait():
        held_since = time.monotonic()
        for request in reader.take():
            writer.put(worker.answer(request))
            now = time.monotonic()
            if now - held_since > _HOLD_SECONDS:
                writer.flush()
                held_since = now
        writer.flush()


def _seen(slot: int, view: View) -> dict[str, Any]:
    """The part of an answer that resets and steps share."""
    return {"slot": slot, "observation": view.observation, "images": view.images}


def _versions(packages: set[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed distributions; others are part of the image."""
    versions = {}
    for package in sorted(packages):
        for distribution in metadata.packages_distributions().get(package, [package]):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return versions


def _discard(environment: Environment) -> None:
    """Frees an environment that failed: its state can no longer be trusted."""
    try:
        environment.close()
    except WorkerError:
        # It was being thrown away for an error that is already on its way to the parent.
        return
