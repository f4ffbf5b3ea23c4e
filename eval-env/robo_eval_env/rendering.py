"""Draws what MuJoCo cameras see, as the manifest's render profile says, without touching the physics.

The simulation is copied into a scratch state before drawing, so an episode with cameras has the same trajectory
as one without. By default shadows, reflections and multisampling are off and meshes are thinned: at the sizes policies
look at, they cost twenty times more than they show. One drawing context serves all instances and cameras of an
environment.
"""

import copy
from collections.abc import Mapping

import mujoco
import numpy as np

from robo_eval_env import opengl
from robo_eval_env.errors import BadRequestError
from robo_eval_env.meshes import thin_meshes
from robo_eval_env.scenes import Scene, Turn
from robo_eval_env.specification import Camera, Render

_MAX_GEOMS = 2000


class Renderer:
    """Draws instances of one environment."""

    def __init__(self, model: mujoco.MjModel, platform: opengl.Platform, size: tuple[int, int], render: Render) -> None:
        """Uploads meshes and textures of `model` for pictures of up to `size` (width, height)."""
        width, height = size
        lean = copy.copy(model)
        lean.vis.global_.offwidth, lean.vis.global_.offheight = width, height
        lean.vis.quality.offsamples = render.msaa
        lean.vis.quality.shadowsize = render.shadows
        if render.mesh_cells:
            thin_meshes(lean, render.mesh_cells)
        self._gl = platform.context(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(lean, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = render.shadows > 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = render.reflections
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._scratch = mujoco.MjData(model)

    def draw(self, scene: Scene, cameras: Mapping[str, Camera], environment: str) -> dict[str, bytes]:
        """Returns the images of all cameras by their names in the manifest."""
        self._gl.make_current()
        self._pose(scene)
        return {name: self._shoot(scene, camera, environment) for name, camera in cameras.items()}

    def _pose(self, scene: Scene) -> None:
        """Copies positions into the scratch state and works out where everything is."""
        scratch, data = self._scratch, scene.data
        scratch.time = data.time
        for field in ("qpos", "mocap_pos", "mocap_quat", "act", "userdata"):
            getattr(scratch, field)[:] = getattr(data, field)
        mujoco.mj_fwdPosition(scene.model, scratch)

    def _shoot(self, scene: Scene, camera: Camera, environment: str) -> bytes:
        """Draws one image; a camera without a name looks at everything from a distance."""
        if not camera.camera:
            mujoco.mjv_defaultFreeCamera(scene.model, self._camera)
            return self._take(scene, camera)
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        index = mujoco.mj_name2id(scene.model, mujoco.mjtObj.mjOBJ_CAMERA.value, camera.camera)
        if index < 0:
            known = ", ".join(scene.model.camera(i).name for i in range(scene.model.ncam)) or "none"
            raise BadRequestError(
                f"`{environment}.observation.cameras`: the simulator has no camera `{camera.camera}` (it has {known})"
            )
        self._camera.fixedcamid = index
        return self._take(scene, camera)

    def _take(self, scene: Scene, camera: Camera) -> bytes:
        """Draws what the camera is set to."""
        mujoco.mjv_updateScene(
            scene.model,
            self._scratch,
            self._options,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        area = mujoco.MjrRect(0, 0, camera.width, camera.height)
        pixels = np.empty((camera.height, camera.width, 3), dtype=np.uint8)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, area, self._context)
        # OpenGL returns rows from bottom to top: half a turn of the upright image is a flip of its columns.
        upright = pixels[:, ::-1] if scene.turn is Turn.HALF else pixels[::-1]
        return upright.tobytes()
