"""What an episode of MetaWorld is made of: what is seen of it, how long it lasts, when it succeeds."""

import hashlib
import struct

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from robo_eval_env.client import WorkerProcess
from robo_eval_env.environment import Pool
from robo_eval_env.episode import Episode
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Simulation

from .conftest import TASKS, metaworld


def take(task: str, **changes):
    """Returns an environment of a task, in this process."""
    return Pool([Simulation.from_json(metaworld(task, **changes))], Studio()).take(f"metaworld/{task}")


def uncompiled(task: str, seed: int):
    """Seeds a task by MetaWorld's own means alone, for comparison with the hook."""
    env = ALL_V3_ENVIRONMENTS[task]()
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env.seed(seed)
    return env, env.reset()[0]


@pytest.mark.parametrize("task", TASKS)
def test_the_goal_is_hidden_and_only_the_hand_is_seen(task: str) -> None:
    """A miner sees the hand and the gripper; the simulator's own observation has no goal in it."""
    environment = take(task)
    raw = environment.reset(3)
    assert raw.shape == (39,)
    assert not raw[36:39].any()
    hand = environment._env.get_endeff_pos()
    seen = Episode(environment, 3).start().observation
    assert seen == raw[:4].tolist()
    assert seen[:3] == pytest.approx(hand.tolist())
    stepped = environment.step([0.0, 0.0, 0.0, 0.0])[0]
    assert not stepped[36:39].any()


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_is_500_steps_without_an_error(arm: WorkerProcess, task: str) -> None:
    """An arm that does nothing fails at the last step, not by an exception after it."""
    assert "error" not in arm.call("reset", slot=0, environment=f"metaworld/{task}", seed=11)
    answers = [arm.call("step", slot=0, action=[0.0, 0.0, 0.5, -1.0]) for _ in range(500)]
    assert all(answer["end"] is None for answer in answers[:-1])
    end = answers[-1]["end"]
    assert (end["steps"], end["success"]) == (500, False)
    assert end["return"] == pytest.approx(sum(answer["reward"] for answer in answers))
    late = arm.call("step", slot=0, action=[0.0, 0.0, 0.0, 0.0])
    assert late["error"]["kind"] == "bad_request"


def closing_drawer(**changes) -> list:
    """Drives the hand forward into the open drawer; returns (reward, ending, info success) per step."""
    environment = take("drawer-close-v3", **changes)
    flags = []
    step = environment._env.step

    def watched(action):
        result = step(action)
        flags.append(bool(result[4]["success"]))
        return result

    environment._env.step = watched
    episode = Episode(environment, 1)
    episode.start()
    # Down onto the table, against the handle until the drawer is shut, then away from it again.
    plan = [[0, 0, -1, 1]] * 40 + [[0, 1, 0, 1]] * 100 + [[0, -1, 1, 1]] * 360
    endings = []
    for action in plan:
        endings.append(episode.step([float(value) for value in action])[2])
        if endings[-1] is not None:
            break
    return list(zip(flags, endings, strict=True))


def test_success_stops_the_episode_when_asked() -> None:
    """The first step that succeeds is the last."""
    steps = closing_drawer()
    assert [flag for flag, _ in steps].index(True) == len(steps) - 1
    assert steps[-1][1].success
    assert steps[-1][1].steps == len(steps) < 500


def test_success_stays_when_the_episode_goes_on() -> None:
    """Without a stop at success, the episode runs to its limit and remembers."""
    steps = closing_drawer(stop_on_success=False)
    assert any(flag for flag, _ in steps)
    assert len(steps) == 500
    assert steps[-1][1].success


def test_the_hash_is_the_documented_one() -> None:
    """The formula of docs/protocols.md, worked out over MetaWorld made without our hook."""
    task, seed = "pick-place-v3", 4_000_000_001
    env, observation = uncompiled(task, seed)
    expected = hashlib.sha256(struct.pack("<I", seed) + observation.astype("<f8").tobytes())
    episode = Episode(take(task, max_steps=25), seed)
    episode.start()
    dice = np.random.default_rng(0)
    for _ in range(25):
        # Outside [-1, 1] now and then: the hash takes the action as it was given, the simulator a clipped one.
        action = dice.uniform(-1.5, 1.5, 4)
        observation, reward, terminated, _, _ = env.step(np.clip(action, -1, 1).astype(np.float32))
        expected.update(struct.pack("<4d", *action) + observation.astype("<f8").tobytes())
        expected.update(struct.pack("<d?", reward, terminated))
        _, _, ending = episode.step(action.tolist())
    assert ending.trajectory_hash == expected.hexdigest()


def test_wrong_tasks_and_limits_are_refused(worker: WorkerProcess) -> None:
    """Both would otherwise end in an exception of the simulator, in the middle of an evaluation."""
    for changed, said in (
        (metaworld("fly-v3"), "no task `fly-v3`"),
        (metaworld("reach-v3", max_steps=501), "500 at most"),
    ):
        error = worker.call("open", simulations=[changed])["error"]
        assert error["kind"] == "bad_request"
        assert said in error["message"]


POSE = [
    {"path": [], "slice": [0, 3], "channel": "ee_pos"},
    {"path": [], "slice": None, "pose": "position", "channel": "ee_pos_again"},
    {"path": [], "slice": None, "pose": "orientation", "channel": "ee_quat"},
    {"path": [], "slice": None, "pose": "linear_velocity", "channel": "ee_vel_lin"},
    {"path": [], "slice": None, "pose": "angular_velocity", "channel": "ee_vel_ang"},
    {"path": [], "slice": [3, 4], "channel": "gripper", "scale": -1.0, "offset": 1.0},
]


@pytest.mark.parametrize("task", TASKS)
def test_a_pose_is_that_of_the_hand_and_never_changes_a_trajectory(task: str) -> None:
    """The hand's place, a unit quaternion and velocities that fit how the hand moves."""
    channels = [{"channel": "ee_twist", "size": 6, "slice": [0, 3]}, {"channel": "gripper", "size": 1}]
    action = {"size": 4, "low": -1.0, "high": 1.0, "out_of_range": "clip", "kind": "direct", "channels": channels}
    observation = {"state": POSE, "cameras": {}, "size": 17}
    environment = take(task, dialect="canonical", observation=observation, action=action, max_steps=20)
    episode, plain = Episode(environment, 5), Episode(take(task, max_steps=20), 5)
    seen = [episode.start().observation]
    assert plain.start().observation == seen[0][:3] + seen[0][16:]
    ending, expected = None, None
    while ending is None:
        move = [0.7, -0.4, 0.3, 1.0]
        view, _, ending = episode.step(move)
        _, _, expected = plain.step(move)
        seen.append(view.observation)
    assert ending == expected
    seconds = environment._env.dt
    for before, after in zip(seen, seen[1:], strict=False):
        assert after[:3] == after[3:6]
        assert np.linalg.norm(after[6:10]) == pytest.approx(1.0)
        moved = (np.array(after[:3]) - np.array(before[:3])) / seconds
        assert np.linalg.norm(np.array(after[10:13]) - moved) < 0.4, (before, after)
    assert np.linalg.norm(seen[5][10:13]) > 0.05


def test_a_pose_needs_a_hook_that_measures_it(worker: WorkerProcess) -> None:
    """Families without such a hook say so when they are opened."""
    document = metaworld("reach-v3", observation={"state": [{"pose": "orientation"}], "cameras": {}})
    document["gymnasium"] = {"make": "Pendulum-v1", "kwargs": {}, "imports": [], "hook": None}
    document |= {"action": document["action"] | {"size": 1}, "success": {"rule": "survive", "when": "last"}}
    document["stop_on_success"] = False
    answer = worker.call("open", simulations=[document])
    assert "takes the pose `orientation`, which its hook does not measure" in answer["error"]["message"]
    document["observation"]["state"] = [{"pose": "elbow"}]
    assert "must stand alone and be one of position" in worker.call("open", simulations=[document])["error"]["message"]
