"""Finds a way to draw without a screen: EGL, else OSMesa.

PyOpenGL binds to one platform for the life of a process, so each way is first tried in a forked child, which also
survives drivers that crash. Forking is safe here: it happens before the process has any other thread.
"""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from robo_eval_env.errors import ImportFailedError, describe

PLATFORMS = ("egl", "osmesa")
"""In order of preference."""

INSTALL_HINT = (
    "install the packages `libegl1 libegl-mesa0 libgl1-mesa-dri` (EGL) or `libosmesa6` (OSMesa), "
    "or take the cameras out of the manifest"
)


@dataclass(frozen=True, slots=True)
class Platform:
    """A way to draw that was seen to work."""

    name: str

    def context(self, width: int, height: int) -> Any:
        """Makes an OpenGL context whose largest picture is `width` x `height`."""
        return importlib.import_module(f"mujoco.{self.name}").GLContext(width, height)


def choose() -> Platform:
    """Returns the first platform that works; `MUJOCO_GL` restricts the choice to one.

    Raises:
        ImportFailedError: None works.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    failures = []
    for name in (wanted,) if wanted in PLATFORMS else PLATFORMS:
        failure = _try_in_child(name)
        if failure is None:
            return Platform(name)
        failures.append(f"{name}: {failure}")
    raise ImportFailedError(f"cannot draw camera images ({'; '.join(failures)}): {INSTALL_HINT}")


def _try_in_child(name: str) -> str | None:
    """Makes a context in a child process; returns what went wrong there, or None."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _report(name, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        report = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    return report or f"the driver ended its process with code {code}"


def _report(name: str, pipe: int) -> None:
    """Runs in the child: draws nothing, says what failed, and never returns."""
    code = 1
    try:
        context = Platform(name).context(16, 16)
        context.make_current()
        code = 0
    except BaseException as error:
        os.write(pipe, describe(error)[:400].encode())
    finally:
        # Neither exit handlers nor the parent's buffers may run twice.
        os._exit(code)
