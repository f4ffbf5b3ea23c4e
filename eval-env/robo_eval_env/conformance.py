"""Tests an environment as its manifest describes it: spaces, determinism, variety of seeds, speed.

What a manifest promises is tried, not read: the same seed and actions are played in a fresh process, again in it after
other episodes, and in a second process between episodes of other environments. A line of JSON per environment tells
what was found; nothing here repairs anything.
"""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from robo_eval_env.client import WorkerProcess
from robo_eval_env.environment import Environment, Pool
from robo_eval_env.episode import Episode, simulating
from robo_eval_env.errors import BadRequestError, WorkerError
from robo_eval_env.observations import flatten
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Action, Simulation

_TOGETHER = 10
"""Environments opened in one worker: enough to share the start of a process, few enough for its memory."""

_SEEDS = 8
"""Scenes that are compared."""

_NUMBERS = (bool, int, float, np.number, np.ndarray)

_SEED, _OTHER = 1_234_567, 89


def test(file: str, *, steps: int, determinism: bool = True) -> bool:
    """Tests the simulations of a JSON file and prints what was found; whether all is well.

    Without `determinism`, which takes most of the time, each environment is made and stepped in this process alone.
    """
    with open(file, encoding="utf-8") as source:
        documents = json.load(source)
    if not isinstance(documents, list):
        raise BadRequestError(f"`{file}` must hold a list of simulations")
    well = True
    for first in range(0, len(documents), _TOGETHER):
        for found in examine(documents[first : first + _TOGETHER], steps=steps, determinism=determinism):
            print(json.dumps(found), flush=True)
            well = well and all(check["problem"] is None for check in found["checks"])
    return well


def examine(documents: list[dict[str, Any]], *, steps: int, determinism: bool = True) -> Iterator[dict[str, Any]]:
    """Yields what is found about each environment, in their order."""
    found = [_alone(document, steps=steps) for document in documents]
    usable = [
        document
        for document, finding in zip(documents, found, strict=True)
        if determinism and finding["steps_per_second"]
    ]
    # Short episodes, so that each has an ending and with it a trajectory hash.
    short = [{**document, "max_steps": min(document["max_steps"], steps)} for document in usable]
    differences = dict(zip((one["environment"] for one in short), _differences(short), strict=True))
    for finding in found:
        if finding["environment"] in differences:
            finding["checks"].insert(1, _check("determinism", *differences[finding["environment"]]))
        yield finding


def _check(name: str, problem: str | None, note: str = "") -> dict[str, Any]:
    """One finding; without a problem the check is passed, and the note says what was seen."""
    return {"check": name, "problem": problem, "note": note}


def _alone(document: dict[str, Any], *, steps: int) -> dict[str, Any]:
    """Makes an environment in this process and looks at its spaces, seeds and speed."""
    finding: dict[str, Any] = {"environment": document.get("environment"), "checks": [], "steps_per_second": None}
    environment = None
    try:
        studio = Studio()
        simulation = Simulation.from_json(document)
        environment = Pool([simulation], studio).take(simulation.environment)
        problem, note = _spaces(environment, steps=min(steps, simulation.max_steps))
        finding["checks"].append(_check("spaces", problem, note))
        finding["checks"].append(_check("seeds", *_variety(environment)))
        finding["steps_per_second"] = _speed(environment, steps=steps)
        finding["renderer"] = studio.platform
    except WorkerError as error:
        finding["checks"].append(_check("spaces", str(error)))
    finally:
        if environment is not None:
            environment.close()
    return finding


def _spaces(environment: Environment, *, steps: int) -> tuple[str | None, str]:
    """Compares what the simulator takes and returns with what the manifest and the simulator itself say."""
    simulation, space = environment.simulation, environment.action_space
    action = simulation.action
    if action.kind == "direct" and isinstance(space, spaces.Box):
        low, high = float(np.min(space.low)), float(np.max(space.high))
        if action.low < low or action.high > high:
            return f"`action` may be {action.low} to {action.high}, but the simulator takes {low} to {high}", ""
    visible = None
    with simulating(simulation.environment):
        observation = environment.reset(_SEED)
        for values in _plan(action, steps=steps):
            raw = flatten(observation)
            if not np.isfinite(raw).all():
                return f"an observation holds {raw[~np.isfinite(raw)][0]}", ""
            expected = _size(environment.observation_space)
            if expected is not None and raw.size != expected:
                return f"an observation has {raw.size} numbers, but the simulator declares {expected}", ""
            seen = len(environment.state.select(observation, raw))
            if visible not in (None, seen):
                return f"a miner sees {visible} numbers at first and {seen} later", ""
            visible = seen
            observation, _, terminated, truncated, _ = environment.step(values)
            if terminated or truncated:
                break
    declared = simulation.observation.size
    if declared not in (None, visible):
        return f"`observation.size` is {declared}, but the simulator shows {visible} numbers", ""
    return None, f"{visible} seen, {action.size} acted"


def _size(space: spaces.Space) -> int | None:
    """Returns how many numbers an observation of a space has; None for a space that does not say."""
    try:
        return int(spaces.flatdim(space))
    except (NotImplementedError, ValueError):
        return None


def _variety(environment: Environment) -> tuple[str | None, str]:
    """Counts how many of some seeds give scenes of their own: by all that is observed, by rewards, and by `info`.

    Goals are hidden from observations, and rewards may not depend on them before an object is touched.
    """
    plan = _plan(environment.simulation.action, steps=5)
    scenes = set()
    with simulating(environment.simulation.environment):
        for seed in range(_SEEDS):
            trace = [flatten(environment.reset(seed)).tobytes()]
            for values in plan:
                observation, reward, terminated, truncated, info = environment.step(values)
                told = repr([(key, info[key]) for key in sorted(info) if isinstance(info[key], _NUMBERS)])
                trace.append(flatten(observation).tobytes() + np.float64(reward).tobytes() + told.encode())
                if terminated or truncated:
                    break
            scenes.add(b"".join(trace))
    if len(scenes) == 1:
        return f"{_SEEDS} seeds give one and the same scene", ""
    return None, f"{len(scenes)} of {_SEEDS} differ"


def _speed(environment: Environment, *, steps: int) -> float:
    """Steps episodes as a worker does, images included; returns steps per second of processor time."""
    taken, used = 0, 0.0
    seed = 0
    while taken < steps:
        episode = Episode(environment, seed)
        episode.start()
        seed += 1
        started = time.process_time()
        for values in _plan(environment.simulation.action, steps=steps - taken):
            taken += 1
            if episode.step(values)[2] is not None:
                break
        used += time.process_time() - started
    return round(taken / max(used, 1e-9), 1)


def _differences(documents: list[dict[str, Any]]) -> list[tuple[str | None, str]]:
    """Plays every environment in two processes, among other episodes, and tells where they part."""
    if not documents:
        return []
    with WorkerProcess() as fresh, WorkerProcess() as reused:
        for worker in (fresh, reused):
            opened = worker.call("open", simulations=documents)
            if "error" in opened:
                return [(opened["error"]["message"], "")] * len(documents)
        first = [_play(fresh, document) for document in documents]
        # The other way round and between other episodes, so that each environment meets another past.
        second = [_play_among_others(reused, document) for document in reversed(documents)][::-1]
        again = [_play_among_others(fresh, document) for document in documents]
    found = []
    for document, one, *others in zip(documents, first, second, again, strict=True):
        promised = Simulation.from_json(document).determinism == "bitwise"
        problems = [_first_difference(one, other, where) for other, where in zip(others, _PASTS, strict=True)]
        problem = next((problem for problem in problems if problem), None)
        if promised or (problem is not None and "failed" in problem):
            found.append((problem, "equal bits in two processes"))
        else:
            found.append((None, "not promised"))
    return found


_PASTS = ("in another process, after other episodes", "in the same process, after other episodes")


def _play(worker: WorkerProcess, document: dict[str, Any], *, seed: int = _SEED, slot: int = 0) -> list[Any]:
    """Plays an episode to its end and returns all answers."""
    answers = [worker.call("reset", slot=slot, environment=document["environment"], seed=seed)]
    for values in _plan(_action(document), steps=document["max_steps"]):
        if "error" in answers[-1] or answers[-1].get("end") is not None:
            break
        answers.append(worker.call("step", slot=slot, action=values))
    return answers


def _play_among_others(worker: WorkerProcess, document: dict[str, Any]) -> list[Any]:
    """The same after a whole episode of another seed, and beside one of a third seed in another slot."""
    _play(worker, document, seed=_OTHER)
    worker.call("reset", slot=1, environment=document["environment"], seed=_OTHER + 1)
    plan = _plan(_action(document), steps=document["max_steps"])
    answers = [worker.call("reset", slot=0, environment=document["environment"], seed=_SEED)]
    for values in plan:
        if "error" in answers[-1] or answers[-1].get("end") is not None:
            break
        # It may have ended already: whether it answers with a view or an error does not matter.
        worker.call("step", slot=1, action=values)
        answers.append(worker.call("step", slot=0, action=values))
    worker.call("close", slot=1)
    return answers


def _first_difference(one: list[Any], other: list[Any], where: str) -> str | None:
    """Tells in words where two lists of answers part."""
    for step, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        for answer in (ours, theirs):
            if "error" in answer:
                return f"step {step} failed: {answer['error']['message']}"
        for part in ("observation", "reward", "images", "end"):
            if ours.get(part) != theirs.get(part):
                place = "after the reset" if step == 0 else f"at step {step}"
                return f"the same seed and actions give another {part} {place} {where}"
    if len(one) != len(other):
        return f"the same seed and actions end after {len(one) - 1} steps, and after {len(other) - 1} {where}"
    return None


def _action(document: dict[str, Any]) -> Action:
    """Reads the action of a document that has been read before."""
    return Simulation.from_json(document).action


def _plan(action: Action, *, steps: int) -> list[list[float]]:
    """Draws actions, always the same ones."""
    dice = random.Random(7)
    if action.kind == "discrete":
        return [[float(dice.randint(int(action.low), int(action.high)))] for _ in range(steps)]
    return [[dice.uniform(action.low, action.high) for _ in range(action.size)] for _ in range(steps)]
