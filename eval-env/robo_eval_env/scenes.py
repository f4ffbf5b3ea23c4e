"""What cameras look at, and who draws it.

Nothing here imports MuJoCo before an image is asked for: families without it need not install it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robo_eval_env import opengl
from robo_eval_env.specification import Camera, Render

if TYPE_CHECKING:
    import mujoco

    from robo_eval_env.rendering import Renderer


class Turn(enum.Enum):
    """How far a family's images have to be turned to be upright."""

    NONE = 0
    HALF = 180


@dataclass(frozen=True, slots=True)
class Scene:
    """What a camera looks at."""

    model: "mujoco.MjModel"
    data: "mujoco.MjData"
    turn: Turn

    def first_camera(self) -> str:
        """Returns the name of the first camera, or an empty text if there is none."""
        return self.model.camera(0).name if self.model.ncam else ""


class Studio:
    """The renderers of a worker, one per environment, made when first needed."""

    def __init__(self) -> None:
        """Starts without any."""
        self._platform: opengl.Platform | None = None
        self._renderers: dict[str, Renderer] = {}

    @property
    def platform(self) -> str | None:
        """How images are drawn; None before the first."""
        return self._platform.name if self._platform else None

    def draw(self, environment: str, scene: Scene, cameras: Mapping[str, Camera], render: Render) -> dict[str, bytes]:
        """Draws a scene of an environment, always in the same way.

        Raises:
            WorkerError: There is no way to draw on this machine, or no such camera.
        """
        renderer = self._renderers.get(environment)
        if renderer is None:
            from robo_eval_env.rendering import Renderer

            if self._platform is None:
                self._platform = opengl.choose()
            width = max(camera.width for camera in cameras.values())
            height = max(camera.height for camera in cameras.values())
            renderer = self._renderers[environment] = Renderer(scene.model, self._platform, (width, height), render)
        return renderer.draw(scene, cameras, environment)
