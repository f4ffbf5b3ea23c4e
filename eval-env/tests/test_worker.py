"""The worker's protocol over a real process: frames, order, wrong requests, the ends of input."""

import json
import os
import signal
import struct
import subprocess
import sys

import msgpack
import pytest

from robo_eval_env.client import WorkerProcess

from .conftest import document

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
PENDULUM = document("gym/Pendulum-v1", max_steps=3)


@pytest.fixture
def pendulum(worker: WorkerProcess) -> WorkerProcess:
    """A worker with one open environment."""
    assert "error" not in worker.call("open", simulations=[PENDULUM])
    return worker


def test_open_tells_versions_and_may_be_repeated(worker: WorkerProcess) -> None:
    """The same request again gets the same answer; another one is refused."""
    opened = worker.call("open", simulations=[PENDULUM])
    assert set(opened) == {"python", "packages", "renderer"}
    assert opened["renderer"] is None
    assert {"gymnasium", "numpy"} <= set(opened["packages"])
    assert worker.call("open", simulations=[PENDULUM]) == opened
    refused = worker.call("open", simulations=[document("gym/CartPole-v1")])
    assert refused["error"]["kind"] == "bad_request"
    assert worker.call("open", simulations=[PENDULUM]) == opened


def test_many_requests_in_one_write_are_answered_in_order(pendulum: WorkerProcess) -> None:
    """Slots, environments and errors come back in the order of the requests."""
    requests = [{"op": "reset", "slot": slot, "environment": "gym/Pendulum-v1", "seed": slot} for slot in range(40)]
    requests += [{"op": "step", "slot": slot, "action": [0.0]} for slot in range(41)]
    pendulum.send(*requests)
    answers = [pendulum.receive() for _ in requests]
    assert [answer["slot"] for answer in answers] == [*range(40), *range(41)]
    assert [("error" in answer) for answer in answers] == [False] * 80 + [True]


def test_a_frame_may_come_in_pieces(pendulum: WorkerProcess) -> None:
    """Bytes are put together whatever the pipe cuts them into."""
    payload = msgpack.packb({"op": "close", "slot": 3})
    for byte in struct.pack(">I", len(payload)) + payload:
        pendulum.send_bytes(bytes([byte]))
    assert pendulum.receive() == {"slot": 3}


@pytest.mark.parametrize(
    "request_",
    [
        "hello",
        7,
        {},
        {"op": "jump"},
        {"op": "step", "slot": 0},
        {"op": "step", "slot": 99, "action": [0.0]},
        {"op": "step", "slot": "a", "action": [0.0]},
        {"op": "step", "slot": 0, "action": [0.0, 0.0]},
        {"op": "step", "slot": 0, "action": []},
        {"op": "step", "slot": 0, "action": 1.0},
        {"op": "step", "slot": 0, "action": ["left"]},
        {"op": "step", "slot": 0, "action": [True]},
        {"op": "step", "slot": 0, "action": [float("nan")]},
        {"op": "step", "slot": 0, "action": [float("inf")]},
        {"op": "step", "slot": 0, "action": [1.01]},
        {"op": "step", "slot": 0, "action": [0.0], "colour": "red"},
        {"op": "reset", "slot": 0, "environment": "gym/CartPole-v1", "seed": 1},
        {"op": "reset", "slot": 0, "environment": "gym/Pendulum-v1", "seed": -1},
        {"op": "reset", "slot": 0, "environment": "gym/Pendulum-v1", "seed": 2**32},
        {"op": "reset", "slot": 0, "environment": "gym/Pendulum-v1", "seed": 1.5},
        {"op": "close"},
    ],
)
def test_wrong_requests_leave_a_running_episode_alone(pendulum: WorkerProcess, request_: object) -> None:
    """They are answered with `bad_request`; the episode ends as if they had never come."""

    def play(wrong: object | None) -> object:
        pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
        if wrong is not None:
            pendulum.send(wrong)
            error = pendulum.receive()["error"]
            assert error["kind"] == "bad_request"
            assert error["message"] and "\n" not in error["message"]
        return [pendulum.call("step", slot=0, action=[0.1]) for _ in range(3)]

    assert play(request_) == play(None)


def test_an_action_may_hold_whole_numbers(pendulum: WorkerProcess) -> None:
    """JSON does not tell 1 from 1.0, and neither does the hash."""
    endings = []
    for one in (1, 1.0):
        pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
        endings.append([pendulum.call("step", slot=0, action=[one]) for _ in range(3)][-1]["end"])
    assert endings[0] == endings[1]
    assert endings[0]["steps"] == 3


def test_a_reset_gives_up_the_running_episode(pendulum: WorkerProcess) -> None:
    """And so does a close; closing an idle slot is no mistake."""
    pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
    first = pendulum.call("step", slot=0, action=[0.1])
    pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
    assert pendulum.call("step", slot=0, action=[0.1]) == first
    assert pendulum.call("close", slot=0) == {"slot": 0}
    assert pendulum.call("close", slot=0) == {"slot": 0}
    assert pendulum.call("step", slot=0, action=[0.1])["error"]["kind"] == "bad_request"


def test_requests_before_open_are_refused(worker: WorkerProcess) -> None:
    """The message says what is missing."""
    error = worker.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)["error"]
    assert error == {"kind": "bad_request", "message": "the worker is not open"}


def test_libraries_may_print(worker: WorkerProcess) -> None:
    """What they write to standard output ends in the log, not among the frames."""
    tale = document(
        "tests/tale",
        gymnasium={"make": "robo-tests/Tale-v0", "imports": ["tests.fakes"]},
        action={"size": 2, "low": -1.0, "high": 1.0},
    )
    assert "error" not in worker.call("open", simulations=[tale])
    assert worker.call("reset", slot=0, environment="tests/tale", seed=0)["slot"] == 0
    code, log = worker.finish()
    assert code == 0
    assert "a library that prints" in log


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (struct.pack(">I", 10) + b"short", "inside a frame"),
        (b"\x00\x00", "inside a frame"),
        (struct.pack(">I", 0xFFFFFFFF) + b"x" * 64, "4294967295 bytes announced"),
        (struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1", "not MessagePack"),
        (struct.pack(">I", 3) + b"\x01\x02\x03", "not MessagePack"),
        (struct.pack(">I", 0), "not MessagePack"),
        (b"GET / HTTP/1.1\r\n\r\n", "bytes announced"),
    ],
)
def test_a_broken_stream_ends_the_worker(worker: WorkerProcess, data: bytes, said: str) -> None:
    """With exit code 2 and one line that says what was wrong."""
    worker.send_bytes(data)
    code, log = worker.finish()
    assert code == 2
    assert log.startswith("robo_eval_env: ") and log.count("\n") == 1
    assert said in log


def test_the_end_of_input_ends_the_worker(pendulum: WorkerProcess) -> None:
    """Cleanly, whatever still runs in it."""
    pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
    assert pendulum.finish() == (0, "")


def test_interrupts_are_the_parents_business_and_the_worker_is_nice(pendulum: WorkerProcess) -> None:
    """Ctrl-C reaches the whole group of a terminal: the worker goes on until its input ends."""
    os.kill(pendulum.pid, signal.SIGINT)
    assert "error" not in pendulum.call("reset", slot=0, environment="gym/Pendulum-v1", seed=1)
    assert os.getpriority(os.PRIO_PROCESS, pendulum.pid) >= os.getpriority(os.PRIO_PROCESS, 0)
    with open(f"/proc/{pendulum.pid}/stat", encoding="ascii") as stat:
        niceness = int(stat.read().rpartition(")")[2].split()[16])
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)


def test_a_family_without_mujoco_never_imports_it() -> None:
    """So that its lock file need not hold it."""
    program = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from robo_eval_env.worker import Worker\n"
        f"answer = Worker().answer({{'op': 'open', 'simulations': [{PENDULUM!r}]}})\n"
        "sys.exit(answer.get('error', {}).get('message'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the package's command line."""
    return subprocess.run(
        [sys.executable, "-m", "robo_eval_env", *arguments], capture_output=True, text=True, env=ENVIRONMENT
    )


def test_check_prints_versions() -> None:
    """As JSON, for the program that prepares environments."""
    done = command("check", "mujoco", "gymnasium.spaces", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["modules"]["mujoco"].startswith("3.")
    assert found["modules"]["gymnasium.spaces"].startswith("1.")
    assert found["modules"]["json"] is None


def test_check_says_what_is_broken() -> None:
    """In one line, with exit code 1."""
    done = command("check", "numpy", "no_such_module")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "`no_such_module`" in done.stderr


def test_bench_prints_a_line_per_simulation(tmp_path) -> None:
    """Rates of both sides and their ratio."""
    file = tmp_path / "simulations.json"
    file.write_text(json.dumps([document("gym/Pendulum-v1")]))
    done = command("bench", "--simulations", str(file), "--steps", "60", "--slots", "2")
    assert done.returncode == 0, done.stderr
    name, raw, through, ratio = done.stdout.splitlines()[1].split()
    assert name == "gym/Pendulum-v1"
    assert float(raw) > 0 and float(through) > 0
    assert float(ratio) == pytest.approx(float(through) / float(raw), abs=0.01)
