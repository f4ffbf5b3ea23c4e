"""Compares what a worker achieves with what its simulator could: steps per second of processor time.

Both sides run the same environments, seeds and actions, and step as many environments in turn, so that what differs
is the worker alone: frames, checks, hashes.
"""

import json
import random
import time
from typing import Any

from robo_eval_env.client import WorkerProcess
from robo_eval_env.environment import Environment, Pool
from robo_eval_env.errors import BadRequestError
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Simulation

_ROUNDS = 5
_HEADER = f"{'environment':<32} {'raw steps/s':>12} {'worker steps/s':>15} {'ratio':>6}"


def bench(file: str, *, steps: int, slots: int) -> None:
    """Prints a line per simulation of a JSON file: steps per CPU second, raw and through a worker, and the ratio."""
    with open(file, encoding="utf-8") as source:
        documents = json.load(source)
    if not isinstance(documents, list):
        raise BadRequestError(f"`{file}` must hold a list of simulations")
    print(_HEADER)
    for document in documents:
        raw, worker = compare(document, steps=steps, slots=slots)
        print(f"{document['environment']:<32} {raw:>12.0f} {worker:>15.0f} {worker / raw:>6.3f}", flush=True)


def compare(document: dict[str, Any], *, steps: int, slots: int) -> tuple[float, float]:
    """Returns steps per CPU second without and with the worker.

    Each is the best of rounds that take turns,
    since whatever else runs on the machine only ever slows a round down.
    """
    # Episodes that stop at success would be reset on one side only.
    document = {**document, "stop_on_success": False}
    simulation = Simulation.from_json(document)
    pool = Pool([simulation], Studio())
    environments = [pool.take(simulation.environment) for _ in range(slots)]
    plan = _plan(simulation, steps=steps, slots=slots)
    taken = len(plan) * slots
    raw, through = [], []
    with WorkerProcess() as worker:
        opened = worker.call("open", simulations=[document])
        if "error" in opened:
            raise BadRequestError(opened["error"]["message"])
        for _ in range(_ROUNDS):
            raw.append(taken / _raw(environments, plan))
            through.append(taken / _through(worker, simulation.environment, plan))
    return max(raw), max(through)


def _plan(simulation: Simulation, *, steps: int, slots: int) -> list[list[list[float]]]:
    """Draws the actions: rounds in which every slot acts once."""
    dice = random.Random(0)
    action = simulation.action
    draw = (
        (lambda: float(dice.randint(int(action.low), int(action.high))))
        if action.kind == "discrete"
        else (lambda: dice.uniform(action.low, action.high))
    )
    return [[[draw() for _ in range(action.size)] for _ in range(slots)] for _ in range(steps // slots)]


def _raw(environments: list[Environment], plan: list[list[list[float]]]) -> float:
    """Steps the environments themselves; returns the processor time without resets."""
    for environment in environments:
        environment.reset(0)
    used = 0.0
    taken = 0
    for actions in plan:
        mapped = [environment.actions.apply(action) for environment, action in zip(environments, actions, strict=True)]
        started = time.process_time()
        ends = [environment.raw_step(action) for environment, action in zip(environments, mapped, strict=True)]
        used += time.process_time() - started
        taken += 1
        for environment, (_, _, terminated, truncated, _) in zip(environments, ends, strict=True):
            if terminated or truncated or taken % environment.simulation.max_steps == 0:
                environment.reset(0)
    return used


def _through(worker: WorkerProcess, name: str, plan: list[list[list[float]]]) -> float:
    """Steps through the worker, all slots in flight at once; returns its processor time without resets."""
    for slot in range(len(plan[0])):
        worker.call("reset", slot=slot, environment=name, seed=0)
    used = 0.0
    for actions in plan:
        started = worker.cpu_seconds()
        worker.send(*({"op": "step", "slot": slot, "action": action} for slot, action in enumerate(actions)))
        answers = [worker.receive() for _ in actions]
        used += worker.cpu_seconds() - started
        for answer in answers:
            if "error" in answer:
                raise BadRequestError(answer["error"]["message"])
            if answer["end"] is not None:
                worker.call("reset", slot=answer["slot"], environment=name, seed=0)
    return used
