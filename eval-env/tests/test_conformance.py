"""The test of environments finds what is wrong with them, and nothing where nothing is."""

import json
import os
import subprocess
import sys
from typing import Any

from .conftest import document, metaworld

ACTION = {"size": 1, "low": -1.0, "high": 1.0, "out_of_range": "refuse", "kind": "direct"}
OBSERVATION = {"state": [{}], "cameras": {}, "size": 2}


def broken(fault: str, **changes: Any) -> dict[str, Any]:
    """Returns the document of an environment with a fault."""
    base = {
        "gymnasium": {"make": "robo-tests/Broken-v0", "kwargs": {"fault": fault}, "imports": ["tests.fakes"]},
        "action": ACTION,
        "observation": OBSERVATION,
    }
    return document(f"tests/{fault or 'sound'}", **(base | changes))


def examine(*documents: dict[str, Any], arguments: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Runs the command; returns its exit code and what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "robo_eval_env", "test", "--simulations", "/dev/stdin", "--steps", "12", *arguments],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def problems(finding: dict[str, Any]) -> dict[str, str]:
    """Returns what is wrong, by the check that found it."""
    return {check["check"]: check["problem"] for check in finding["checks"] if check["problem"] is not None}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    """A sound fake, Gymnasium's pendulum and an arm with hidden goals pass all three checks."""
    code, found = examine(broken(""), document("gym/Pendulum-v1"), metaworld("plate-slide-back-v3"))
    assert [problems(finding) for finding in found] == [{}, {}, {}]
    assert code == 0
    for finding in found:
        assert [check["check"] for check in finding["checks"]] == ["spaces", "determinism", "seeds"]
        assert finding["steps_per_second"] > 0


def test_what_is_wrong_is_found_by_name() -> None:
    """Each fault by the check that is there for it, and the sound neighbour is not blamed."""
    faults = {
        "chance": ("determinism", "another observation at step 1 in another process"),
        "memory": ("determinism", "after the reset"),
        "deaf": ("seeds", "one and the same scene"),
        "space": ("spaces", "has 2 numbers, but the simulator declares 3"),
    }
    code, found = examine(*(broken(fault) for fault in faults), broken(""))
    assert code == 1
    assert problems(found[-1]) == {}
    for finding, (check, said) in zip(found, faults.values(), strict=False):
        assert list(problems(finding)) == [check]
        assert said in problems(finding)[check]


def test_a_manifest_that_does_not_fit_is_told() -> None:
    """What the simulator takes and shows is not what the manifest says."""
    misfits: list[tuple[dict[str, Any], str]] = [
        ({"action": {**ACTION, "size": 2}}, "size is 2, but the simulator takes 1"),
        ({"action": {**ACTION, "high": 3.0}}, "may be -1.0 to 3.0, but the simulator takes -1.0 to 1.0"),
        ({"observation": {**OBSERVATION, "size": 4}}, "is 4, but the simulator shows 2"),
        ({"observation": {"state": [{"slice": [0, 3]}]}}, "takes [0, 3) of 2 numbers"),
        ({"observation": {"state": [{"path": ["hand"]}]}}, "has no `hand`"),
        ({"gymnasium": {"make": "robo-tests/None-v0", "imports": ["tests.fakes"]}}, "None"),
    ]
    documents = [
        broken("", **changes) | {"environment": f"tests/misfit-{number}"} for number, (changes, _) in enumerate(misfits)
    ]
    code, found = examine(*documents)
    assert code == 1
    for finding, (_, said) in zip(found, misfits, strict=True):
        assert said in problems(finding)["spaces"]


def test_determinism_counts_only_where_it_is_promised() -> None:
    """And can be left out, which saves the two processes."""
    code, (finding,) = examine(broken("chance", determinism="none"))
    assert (code, problems(finding)) == (0, {})
    assert finding["checks"][1]["note"] == "not promised"
    code, (finding,) = examine(broken("chance"), arguments=("--skip-determinism",))
    assert code == 0
    assert [check["check"] for check in finding["checks"]] == ["spaces", "seeds"]
