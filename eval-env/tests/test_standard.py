"""The adapter of Gymnasium environments that need no code of ours, driven by documents alone."""

import hashlib
import struct
from typing import Any

import gymnasium
import numpy as np
import pytest

from robo_eval_env.client import WorkerProcess

from .conftest import document


def open_one(worker: WorkerProcess, simulation: dict[str, Any]) -> str:
    """Opens a simulation and returns its name."""
    opened = worker.call("open", simulations=[simulation])
    assert "error" not in opened, opened
    return simulation["environment"]


def tale(*, kwargs: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Returns the document of the tests' own environment."""
    base = {
        "gymnasium": {"make": "robo-tests/Tale-v0", "kwargs": kwargs or {}, "imports": ["tests.fakes"], "hook": None},
        "action": {"size": 2, "low": -1.0, "high": 1.0, "out_of_range": "refuse", "kind": "scaled"},
        "max_steps": 5,
    }
    return document("tests/tale", **(base | changes))


def play(worker: WorkerProcess, simulation: dict[str, Any]) -> list[Any]:
    """Runs an episode to its end or its first error and returns the answers to its steps."""
    name = open_one(worker, simulation)
    worker.call("reset", slot=0, environment=name, seed=0)
    answers = []
    while not answers or (answers[-1].get("end") is None and "error" not in answers[-1]):
        answers.append(worker.call("step", slot=0, action=[0.0] * simulation["action"]["size"]))
    return answers


def test_pendulum_matches_gymnasium(worker: WorkerProcess) -> None:
    """Scaled actions, rewards, the manifest's limit of steps and the hash, worked out beside the worker."""
    name = open_one(worker, document("gym/Pendulum-v1", max_steps=250))
    env = gymnasium.make("Pendulum-v1", max_episode_steps=1000)
    observation, _ = env.reset(seed=9)
    assert worker.call("reset", slot=0, environment=name, seed=9)["observation"] == observation.tolist()
    expected = hashlib.sha256(struct.pack("<I", 9) + observation.astype("<f8").tobytes())
    total = 0.0
    for step in range(250):
        action = np.sin(step)
        answer = worker.call("step", slot=0, action=[float(action)])
        observation, reward, terminated, _, _ = env.step(np.array([2 * action], dtype=np.float32))
        total += float(reward)
        expected.update(struct.pack("<d", action) + observation.astype("<f8").tobytes())
        expected.update(struct.pack("<d?", reward, terminated))
        assert (answer["observation"], answer["reward"]) == (observation.tolist(), float(reward))
    assert answer["end"] == {
        "steps": 250,
        "return": total,
        "success": True,
        "terminated": False,
        "trajectory_hash": expected.hexdigest(),
    }


def test_cartpole_takes_whole_numbers(worker: WorkerProcess) -> None:
    """A discrete action is an index; falling over is no survival."""
    action = {"size": 1, "low": 0.0, "high": 1.0, "kind": "discrete"}
    name = open_one(worker, document("gym/CartPole-v1", action=action, max_steps=500))
    worker.call("reset", slot=0, environment=name, seed=1)
    refused = worker.call("step", slot=0, action=[0.5])
    assert refused["error"]["kind"] == "bad_request"
    ending = None
    while ending is None:
        ending = worker.call("step", slot=0, action=[1.0])["end"]
    assert ending["success"] is False
    assert 5 < ending["steps"] < 50
    # Two steps to the right for one to the left and back again keep it up for longer.
    answer = worker.call("reset", slot=0, environment=name, seed=1)
    taken = 0
    while "end" not in answer or answer["end"] is None:
        _, _, angle, speed = answer["observation"]
        answer = worker.call("step", slot=0, action=[1.0 if angle + speed > 0 else 0.0])
        taken += 1
    assert taken > ending["steps"]


def test_dictionary_observations_are_joined_in_the_order_of_the_manifest(worker: WorkerProcess) -> None:
    """Paths and slices choose; the hash sees everything, keys in order."""
    state = [{"path": ["z"], "slice": [2, 4]}, {"path": ["a", "b"]}, {"slice": [0, 2]}]
    simulation = tale(observation={"state": state, "cameras": {}}, max_steps=1)
    name = open_one(worker, simulation)
    first = worker.call("reset", slot=0, environment=name, seed=0)
    assert first["observation"] == [3.0, 0.0, 0.0, 0.0, 1.0]
    answer = worker.call("step", slot=0, action=[0.5, 0.0])
    # [-1, 1] became [-2, 2] and [0, 10].
    assert answer["observation"] == [3.0, 1.0, 501.0, 501.0, 1.0]
    raw = struct.pack("<5d", 0, 1, 2, 3, 0), struct.pack("<5d", 501, 1, 2, 3, 1)
    whole = struct.pack("<I", 0) + raw[0] + struct.pack("<2d", 0.5, 0.0) + raw[1] + struct.pack("<d?", 1.0, False)
    assert answer["end"]["trajectory_hash"] == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize(
    ("rule", "when", "stop", "steps", "success"),
    [
        ({"info": "is_success"}, "any", True, 2, True),
        ({"info": "is_success"}, "any", False, 5, True),
        ({"info": "is_success"}, "last", False, 5, False),
        ({"return_at_least": 6.0}, "any", True, 3, True),
        ({"return_at_least": 15.5}, "any", True, 5, False),
        ({"return_at_least": 15.0}, "last", False, 5, True),
        ({"reward_at_least": 4.0}, "any", True, 4, True),
        ({"reward_at_least": 5.0}, "last", False, 5, True),
        ({"reward_at_least": 5.5}, "last", False, 5, False),
        ("survive", "any", False, 5, True),
    ],
)
def test_success_rules(worker: WorkerProcess, rule: Any, when: str, stop: bool, steps: int, success: bool) -> None:
    """Rewards are 1, 2, 3, 4, 5; `info` says success at the second step only."""
    simulation = tale(kwargs={"successes": [2]}, success={"rule": rule, "when": when}, stop_on_success=stop)
    end = play(worker, simulation)[-1]["end"]
    assert (end["steps"], end["success"]) == (steps, success)


@pytest.mark.parametrize(("fault", "success"), [("terminate", False), ("truncate", True)])
def test_the_simulator_may_end_an_episode(worker: WorkerProcess, fault: str, success: bool) -> None:
    """Being terminated is not surviving; reaching the simulator's own limit is."""
    end = play(worker, tale(kwargs={"fault": fault}))[-1]["end"]
    assert (end["steps"], end["success"]) == (3, success)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise", "ZeroDivisionError: the physics exploded"),
        ("observation", "observation holds nan"),
        ("reward", "reward is inf"),
        ("info", "`info` had no `is_success`"),
    ],
)
def test_a_failing_simulator_is_an_answer(worker: WorkerProcess, fault: str, said: str) -> None:
    """The slot is free afterwards and the next episode runs in a new environment."""
    simulation = tale(kwargs={"fault": fault}, success={"rule": {"info": "is_success"}})
    error = play(worker, simulation)[-1]["error"]
    assert error["kind"] == "simulator"
    assert said in error["message"] and "\n" not in error["message"]
    assert worker.call("step", slot=0, action=[0.0, 0.0])["error"]["kind"] == "bad_request"
    assert "error" not in worker.call("reset", slot=0, environment="tests/tale", seed=0)
    assert "error" not in worker.call("step", slot=0, action=[0.0, 0.0])


def test_a_range_may_clip(worker: WorkerProcess) -> None:
    """Values outside become the nearest inside, after they went into the hash."""
    action = {"size": 2, "low": -1.0, "high": 1.0, "out_of_range": "clip", "kind": "scaled"}
    name = open_one(worker, tale(action=action, observation={"state": [{"path": ["a", "b"]}]}))
    worker.call("reset", slot=0, environment=name, seed=0)
    assert worker.call("step", slot=0, action=[-7.0, 3.0])["observation"] == [-2.0 + 10.0 * 100]


@pytest.mark.parametrize(
    ("simulation", "kind", "said"),
    [
        (document("gym/NoSuch-v1"), "bad_request", "NoSuch"),
        (tale(kwargs={"colour": "red"}), "bad_request", "colour"),
        (document("gym/Pendulum-v1", observation={"state": [{"slice": [1, 4]}]}), "bad_request", "of 3 numbers"),
        (document("gym/Pendulum-v1", observation={"state": [{"path": ["x"]}]}), "bad_request", "no `x`"),
        (document("gym/CartPole-v1"), "bad_request", "Discrete"),
        (document("gym/Pendulum-v1", action={"size": 2, "low": 0.0, "high": 1.0}), "bad_request", "takes 1 numbers"),
        (tale() | {"gymnasium": {"make": "x", "imports": ["no_such_module"]}}, "import", "no_such_module"),
        (tale() | {"gymnasium": {"make": "x", "hook": "no_such_hook"}}, "bad_request", "no hook `no_such_hook`"),
        (document("gym/Pendulum-v1", colour="red"), "bad_request", "no field `colour`"),
        (document("gym/Pendulum-v1", success={"rule": {"luck": 1}}), "bad_request", "must be `survive`"),
        (
            document("gym/Pendulum-v1", success={"rule": "survive", "when": "last"}, stop_on_success=True),
            "bad_request",
            "stop_on_success",
        ),
        (document("gym/Pendulum-v1", max_steps=0), "bad_request", "max_steps"),
    ],
)
def test_wrong_documents_are_refused_at_open(
    worker: WorkerProcess, simulation: dict[str, Any], kind: str, said: str
) -> None:
    """Nothing that is wrong with a manifest waits for the first episode."""
    error = worker.call("open", simulations=[simulation])["error"]
    assert error["kind"] == kind, error
    assert said in error["message"]
    assert "error" not in worker.call("open", simulations=[document("gym/Pendulum-v1")])
