"""What the tests share: documents of simulations, and workers to run them in."""

from collections.abc import Iterator
from typing import Any

import pytest

from robo_eval_env.cli import prepare
from robo_eval_env.client import WorkerProcess

prepare()

TASKS = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
)

CAMERAS = {
    "corner": {"camera": "corner", "width": 84, "height": 84},
    "gripper": {"camera": "gripperPOV", "width": 84, "height": 84},
}


def document(environment: str, **changes: Any) -> dict[str, Any]:
    """Returns the document of a standard environment, `FAMILY/GYMNASIUM_ID`, with some keys changed."""
    base = {
        "environment": environment,
        "gymnasium": {"make": environment.partition("/")[2], "kwargs": {}, "imports": [], "hook": None},
        "observation": {"state": [{"path": [], "slice": None}], "cameras": {}},
        "action": {"size": 1, "low": -1.0, "high": 1.0, "out_of_range": "refuse", "kind": "scaled"},
        "success": {"rule": "survive", "when": "last"},
        "determinism": "bitwise",
        "max_steps": 50,
        "stop_on_success": False,
    }
    return base | changes


def metaworld(task: str, *, cameras: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Returns the document that environments/metaworld.yaml makes of a task."""
    base = {
        "gymnasium": {"make": "Meta-World/MT1", "kwargs": {"env_name": task}, "imports": [], "hook": "metaworld"},
        "observation": {"state": [{"path": [], "slice": [0, 4]}], "cameras": cameras or {}},
        "action": {"size": 4, "low": -1.0, "high": 1.0, "out_of_range": "clip", "kind": "direct"},
        "success": {"rule": {"info": "success"}, "when": "any"},
        "max_steps": 500,
        "stop_on_success": True,
    }
    return document(f"metaworld/{task}", **(base | changes))


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    """A worker of its own."""
    with WorkerProcess() as process:
        yield process


@pytest.fixture(scope="session")
def arm() -> Iterator[WorkerProcess]:
    """A worker with all MetaWorld tasks open, which the tests use one after the other."""
    with WorkerProcess() as process:
        opened = process.call("open", simulations=[metaworld(task) for task in TASKS])
        assert "error" not in opened, opened
        yield process
