"""An episode that is played again is the same one, and its film leaves no trace in it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from robo_eval_env.client import WorkerProcess

from .conftest import CAMERAS, document, metaworld
from .test_metaworld_seeds import actions

STEPS = 12


def replay(simulation: dict[str, Any], plan: list[list[float]], *more: str) -> subprocess.CompletedProcess[str]:
    """Runs the command on an episode of seed 5."""
    return subprocess.run(
        [sys.executable, "-m", "robo_eval_env", "replay", "--episode", "/dev/stdin", *more],
        input=json.dumps({"simulation": simulation, "seed": 5, "actions": plan}),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_the_ending_is_the_worker_s(worker: WorkerProcess, tmp_path: Path) -> None:
    """To the last bit, with a film and without; the film moves."""
    simulation = metaworld("reach-v3", cameras=CAMERAS, max_steps=STEPS)
    assert "error" not in worker.call("open", simulations=[simulation])
    worker.call("reset", slot=0, environment="metaworld/reach-v3", seed=5)
    plan = actions(5, STEPS)
    end = [worker.call("step", slot=0, action=action) for action in plan][-1]["end"]
    film, other = tmp_path / "film.gif", tmp_path / "film.mp4"
    for more in ((), ("--film", str(film)), ("--film", str(other))):
        done = replay(simulation, plan, *more)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["end"] == end
    assert other.read_bytes()[4:8] == b"ftyp"
    with Image.open(film) as frames:
        assert (frames.size, frames.n_frames) == ((320, 240), STEPS + 1)
        first = frames.convert("RGB").tobytes()
        frames.seek(STEPS)
        assert frames.convert("RGB").tobytes() != first


def test_what_cannot_be_played_or_filmed_is_told() -> None:
    """In one line, with exit code 1."""
    simulation = document("gym/Pendulum-v1", max_steps=3)
    done = replay(simulation, [[0.0]] * 4)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ended after 3 of 4 steps" in done.stderr
    done = replay(simulation, [[0.0]] * 3, "--film", "/dev/null")
    assert done.returncode == 1
    assert "no MuJoCo model" in done.stderr
    assert json.loads(replay(simulation, [[0.0]]).stdout) == {"end": None}
