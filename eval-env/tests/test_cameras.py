"""Camera images: their form, and that drawing them leaves no trace in the physics."""

from typing import Any

import numpy as np
import pytest

from robo_eval_env.client import WorkerProcess

from .conftest import CAMERAS, TASKS, document, metaworld
from .test_metaworld_seeds import actions

STEPS = 25
NO_EGL_DEVICE = {"MUJOCO_EGL_DEVICE_ID": "99"}


def picture(data: bytes) -> np.ndarray:
    """Returns image bytes as rows of pixels."""
    return np.frombuffer(data, np.uint8).reshape(84, 84, 3)


def run(worker: WorkerProcess, task: str, *, slot: int = 0) -> tuple[list[dict[str, bytes]], Any]:
    """Runs a short episode; returns the images of every answer and the ending."""
    answers = [worker.call("reset", slot=slot, environment=f"metaworld/{task}", seed=5)]
    for action in actions(5, STEPS):
        answers.append(worker.call("step", slot=slot, action=action))
    return [answer["images"] for answer in answers], answers[-1]["end"]


@pytest.fixture(scope="module")
def vision() -> Any:
    """A worker with cameras on all tasks."""
    with WorkerProcess() as process:
        simulations = [metaworld(task, cameras=CAMERAS, max_steps=STEPS) for task in TASKS]
        opened = process.call("open", simulations=simulations)
        assert opened.get("renderer") in ("egl", "osmesa"), opened
        yield process


@pytest.fixture(scope="module")
def blind() -> Any:
    """The same tasks without cameras."""
    with WorkerProcess() as process:
        opened = process.call("open", simulations=[metaworld(task, max_steps=STEPS) for task in TASKS])
        assert opened["renderer"] is None
        yield process


@pytest.mark.parametrize("task", TASKS)
def test_drawing_never_changes_a_trajectory(vision: WorkerProcess, blind: WorkerProcess, task: str) -> None:
    """With and without cameras, the episode is the same to the last bit."""
    images, ending = run(vision, task)
    none, expected = run(blind, task)
    assert ending == expected
    assert not any(none)
    for shown in images:
        assert set(shown) == {"corner", "gripper"}
        assert all(len(data) == 84 * 84 * 3 for data in shown.values())


@pytest.mark.parametrize("task", TASKS)
def test_equal_states_give_equal_images_that_show_something(vision: WorkerProcess, task: str) -> None:
    """Another instance, in another slot, draws the same bytes; the arm's motion shows."""
    first, _ = run(vision, task)
    vision.call("reset", slot=1, environment=f"metaworld/{task}", seed=99)
    second, _ = run(vision, task, slot=2)
    assert first == second
    assert picture(first[0]["corner"]).std() > 20
    assert picture(first[0]["gripper"]).std() > 10
    assert first[0]["corner"] != first[-1]["corner"]
    vision.call("close", slot=1)


@pytest.mark.parametrize("task", TASKS)
def test_the_corner_image_is_upright(vision: WorkerProcess, task: str) -> None:
    """The grey wall is at the top, the brown table below it and the robot's red arm comes in from the right."""
    image = picture(run(vision, task)[0][0]["corner"]).astype(int)
    top = image[:8, :30].reshape(-1, 3)
    assert (np.ptp(top, axis=1) < 30).all(), "nothing but the grey wall at the top left"
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    brown = (red > green + 15) & (green > blue) & (red < 170)
    rows = np.nonzero(brown[:, :40].sum(axis=1) > 8)[0]
    assert rows.size and rows.min() > 35, "the table is in the lower half"
    arm_columns = np.nonzero((red > 110) & (green < 50) & (blue < 50))[1]
    assert arm_columns.mean() > 42


def test_images_follow_an_object_that_moves(vision: WorkerProcess) -> None:
    """Different seeds put the button elsewhere, and the picture says so."""
    task = "metaworld/button-press-topdown-v3"
    views = {bytes(vision.call("reset", slot=0, environment=task, seed=seed)["images"]["corner"]) for seed in range(5)}
    assert len(views) == 5


def test_osmesa_steps_in_for_egl() -> None:
    """A machine whose EGL has no device draws through OSMesa, and says so."""
    with WorkerProcess(NO_EGL_DEVICE) as worker:
        opened = worker.call("open", simulations=[metaworld("reach-v3", cameras=CAMERAS)])
        assert opened.get("renderer") == "osmesa", opened
        seen = worker.call("reset", slot=0, environment="metaworld/reach-v3", seed=5)
        assert picture(seen["images"]["corner"]).std() > 20


def test_a_machine_that_cannot_draw_is_told_what_to_install() -> None:
    """Neither EGL nor OSMesa: one line, and the worker stays usable without cameras."""
    with WorkerProcess({"MUJOCO_GL": "egl", **NO_EGL_DEVICE}) as worker:
        error = worker.call("open", simulations=[metaworld("reach-v3", cameras=CAMERAS)])["error"]
        assert error["kind"] == "import"
        assert "libegl1" in error["message"] and "libosmesa6" in error["message"]
        assert "\n" not in error["message"]
        assert "error" not in worker.call("open", simulations=[metaworld("reach-v3")])
    with WorkerProcess({"PYOPENGL_PLATFORM": "glx"}) as worker:
        error = worker.call("open", simulations=[metaworld("reach-v3", cameras=CAMERAS)])["error"]
        assert error["kind"] == "import"
        assert "egl: " in error["message"] and "osmesa: " in error["message"]


def test_an_unknown_camera_is_named(worker: WorkerProcess) -> None:
    """The message lists the cameras that there are."""
    cameras = {"top": {"camera": "topp", "width": 84, "height": 84}}
    error = worker.call("open", simulations=[metaworld("reach-v3", cameras=cameras)])["error"]
    assert error["kind"] == "bad_request"
    assert "`topp`" in error["message"] and "gripperPOV" in error["message"]


def test_standard_mujoco_environments_have_cameras_too(worker: WorkerProcess) -> None:
    """Without a hook: sizes differ by camera, the reward stays what it is without cameras."""
    plain = document("gym/HalfCheetah-v5", action={"size": 6, "low": -1.0, "high": 1.0}, max_steps=20)
    cameras = {
        "small": {"camera": "track", "width": 40, "height": 30},
        "large": {"camera": "track", "width": 96, "height": 64},
    }
    seeing = {**plain, "environment": "gym/seeing", "observation": {"state": [{}], "cameras": cameras}}
    opened = worker.call("open", simulations=[plain, seeing])
    assert opened.get("renderer") in ("egl", "osmesa"), opened
    endings = []
    for name in ("gym/HalfCheetah-v5", "gym/seeing"):
        images = worker.call("reset", slot=0, environment=name, seed=1)["images"]
        for step in range(20):
            answer = worker.call("step", slot=0, action=[(-1.0) ** step] * 6)
        endings.append(answer["end"])
    assert {name: len(data) for name, data in images.items()} == {"small": 40 * 30 * 3, "large": 96 * 64 * 3}
    assert endings[0] == endings[1] and endings[0]["steps"] == 20


def test_an_environment_without_a_model_has_no_cameras(worker: WorkerProcess) -> None:
    """The message says what is missing."""
    seeing = document("gym/Pendulum-v1", observation={"state": [{}], "cameras": CAMERAS})
    error = worker.call("open", simulations=[seeing])["error"]
    assert error["kind"] == "bad_request"
    assert "hook" in error["message"]


def test_the_render_profile_decides_the_pixels_and_nothing_else(worker: WorkerProcess) -> None:
    """Shadows and whole meshes show; the profile that is the default draws what no profile draws."""
    profiles: dict[str, Any] = {
        "none": None,
        "default": {"shadows": 0, "msaa": 0, "reflections": False, "mesh_cells": 24},
        "shadows": {"shadows": 512},
        "smooth": {"msaa": 4},
        "whole": {"mesh_cells": 0},
        "mirrors": {"reflections": True},
    }
    simulations = []
    for name, profile in profiles.items():
        simulation = metaworld("push-v3", cameras={"corner": CAMERAS["corner"]}, max_steps=2)
        observation = {**simulation["observation"], "render": profile, "encodings": ["png", "list"]}
        simulations.append({**simulation, "environment": f"metaworld/{name}", "observation": observation})
    opened = worker.call("open", simulations=simulations)
    assert "error" not in opened, opened
    images, endings = {}, []
    for name in profiles:
        images[name] = worker.call("reset", slot=0, environment=f"metaworld/{name}", seed=5)["images"]["corner"]
        endings.append([worker.call("step", slot=0, action=action) for action in actions(5, 2)][-1]["end"])
    assert images["none"] == images["default"]
    assert len({images[name] for name in ("default", "shadows", "smooth", "whole")}) == 4
    assert all(ending == endings[0] for ending in endings)
    wrong = {**simulations[0], "observation": {**simulations[0]["observation"], "render": {"shadow": 1}}}
    with WorkerProcess() as other:
        assert "no field `shadow`" in other.call("open", simulations=[wrong])["error"]["message"]
