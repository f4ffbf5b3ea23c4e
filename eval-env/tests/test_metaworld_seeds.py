"""What a seed promises, on every MetaWorld task: equal seeds equal bits, different seeds different scenes."""

import random
from typing import Any

import numpy as np
import pytest

from robo_eval_env.client import WorkerProcess
from robo_eval_env.environment import Environment, Pool
from robo_eval_env.episode import Episode
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Simulation

from .conftest import TASKS, metaworld

STEPS = 60


def actions(seed: int, count: int = STEPS) -> list[list[float]]:
    """Draws actions that reach for the table, so that the arm meets objects."""
    dice = random.Random(seed)
    return [
        [dice.uniform(-1, 1), dice.uniform(-1, 1), dice.uniform(-1, 0.4), dice.uniform(-1, 1)] for _ in range(count)
    ]


def replay(worker: WorkerProcess, task: str, seed: int, *, slot: int = 0) -> list[Any]:
    """Runs an episode of fixed actions and returns all its answers."""
    answers = [worker.call("reset", slot=slot, environment=f"metaworld/{task}", seed=seed)]
    for action in actions(seed):
        answers.append(worker.call("step", slot=slot, action=action))
        if answers[-1]["end"] is not None:
            break
    return [{**answer, "slot": None} for answer in answers]


def pool(task: str, **changes: Any) -> Pool:
    """Returns a pool of one task, in this process."""
    return Pool([Simulation.from_json(metaworld(task, **changes))], Studio())


@pytest.fixture(scope="module")
def short_arm() -> Any:
    """A worker whose episodes end, with their hash, after the steps that these tests take."""
    with WorkerProcess() as process:
        opened = process.call("open", simulations=[metaworld(task, max_steps=STEPS) for task in TASKS])
        assert "error" not in opened, opened
        yield process


@pytest.mark.parametrize("task", TASKS)
def test_a_reused_environment_repeats_a_fresh_process(short_arm: WorkerProcess, task: str) -> None:
    """Other episodes, some of them given up half-way, leave no trace."""
    with WorkerProcess() as fresh:
        assert "error" not in fresh.call("open", simulations=[metaworld(task, max_steps=STEPS)])
        expected = replay(fresh, task, 41)
    assert expected[-1]["end"] is not None
    replay(short_arm, task, 7)
    short_arm.call("reset", slot=0, environment=f"metaworld/{task}", seed=8)
    short_arm.call("step", slot=0, action=[1.0, 1.0, -1.0, 1.0])
    short_arm.call("close", slot=0)
    assert replay(short_arm, task, 41) == expected


@pytest.mark.parametrize("task", TASKS)
def test_interleaved_slots_do_not_touch_each_other(short_arm: WorkerProcess, task: str) -> None:
    """Two episodes of one task and one of another, stepped in turns, answer as they do alone."""
    other = TASKS[(TASKS.index(task) + 1) % len(TASKS)]
    episodes = {3: (task, 41), 4: (task, 42), 5: (other, 41)}
    expected = {slot: replay(short_arm, name, seed) for slot, (name, seed) in episodes.items()}
    seen = {
        slot: [short_arm.call("reset", slot=slot, environment=f"metaworld/{name}", seed=seed)]
        for slot, (name, seed) in episodes.items()
    }
    for step in range(STEPS):
        for slot, (_, seed) in episodes.items():
            if step + 1 < len(expected[slot]):
                seen[slot].append(short_arm.call("step", slot=slot, action=actions(seed)[step]))
    assert {slot: [{**answer, "slot": None} for answer in answers] for slot, answers in seen.items()} == expected


def run(environment: Environment, seed: int) -> str:
    """Runs an episode in this process and returns its hash."""
    episode = Episode(environment, seed)
    episode.start()
    for action in actions(seed):
        _, _, ending = episode.step(action)
        if ending is not None:
            return ending.trajectory_hash
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize("task", TASKS)
def test_global_random_numbers_change_nothing(task: str) -> None:
    """A library that seeds or draws from the global generators does not reach the simulation."""
    environments = pool(task, max_steps=STEPS)
    environment = environments.take(f"metaworld/{task}")
    np.random.seed(1)
    random.seed(1)
    first = run(environment, 5)
    np.random.seed(2)
    random.seed(2)
    np.random.uniform(size=1000)
    assert run(environment, 5) == first
    assert run(environments.take(f"metaworld/{task}"), 5) == first, "a second instance, made of a copied model"
    assert run(environment, 6) != first


@pytest.mark.parametrize("task", TASKS)
def test_different_seeds_move_object_and_goal(task: str) -> None:
    """Twenty seeds give twenty scenes; the same seed gives the same one."""
    environment = pool(task).take(f"metaworld/{task}")
    inner = environment._env

    def scene(seed: int) -> tuple[bytes, bytes]:
        environment.reset(seed)
        return np.asarray(inner.obj_init_pos).tobytes(), np.asarray(inner._target_pos).tobytes()

    scenes = [scene(seed) for seed in range(20)]
    assert len({objects for objects, _ in scenes}) == 20
    assert len({goals for _, goals in scenes}) == 20
    assert scenes == [scene(seed) for seed in range(20)]
