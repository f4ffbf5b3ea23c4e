"""The parts of a MetaWorld step that are Python, done with less of it: the same numbers to the last bit.

Most of a step is not physics: looking up bodies by name, walking over contacts one by one, taking a rotation matrix for
one that might be none. Each replacement here computes what the original computes, in the same order of floating-point
operations; `tests/test_metaworld_speed.py` compares them with MetaWorld's own on eight tasks.
"""

import math
import types
from typing import Any

import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from scipy.spatial.transform import Rotation

_IDENTITY = np.eye(3)
_ROUNDING = 1e-12


class _QuickRotation:
    """Stands in for SciPy's `Rotation` where a task asks for the quaternion of an object."""

    @staticmethod
    def from_matrix(matrix: np.ndarray) -> Rotation:
        """Skips SciPy's costly check of a matrix that passes it: MuJoCo's are orthogonal."""
        error = matrix.dot(matrix.T) - _IDENTITY
        orthogonal = error.max() <= _ROUNDING and error.min() >= -_ROUNDING
        return Rotation.from_matrix(matrix, assume_valid=bool(orthogonal))


class QuickSteps:
    """Mixed into a task's class in front of it."""

    def _id(self: Any, kind: mujoco.mjtObj, name: str) -> int:
        """Returns the number of a named thing, looked up once."""
        known = self.__dict__.setdefault("_known_ids", {})
        if name not in known:
            found = mujoco.mj_name2id(self.model, kind.value, name)
            if found < 0:
                raise KeyError(f"the model has no `{name}`")
            known[name] = found
        return known[name]

    def get_endeff_pos(self: Any) -> np.ndarray:
        """The position of the hand."""
        return self.data.xpos[self._id(mujoco.mjtObj.mjOBJ_BODY, "hand")]

    def get_body_com(self: Any, body_name: str) -> np.ndarray:
        """The position of a body."""
        return self.data.xpos[self._id(mujoco.mjtObj.mjOBJ_BODY, body_name)]

    @property
    def tcp_center(self: Any) -> np.ndarray:
        """The middle between the two fingers."""
        places = self.data.site_xpos
        right = places[self._id(mujoco.mjtObj.mjOBJ_SITE, "rightEndEffector")]
        return (right + places[self._id(mujoco.mjtObj.mjOBJ_SITE, "leftEndEffector")]) / 2.0

    def touching_object(self: Any, object_geom_id: int) -> bool:
        """Whether both fingers press against an object."""
        contacts = self.data.contact
        pairs = contacts.geom
        touches = (pairs == object_geom_id).any(axis=1)
        if not touches.any():
            return False
        for name in ("leftpad_geom", "rightpad_geom"):
            pad = self._id(mujoco.mjtObj.mjOBJ_GEOM, name)
            both = touches & (pairs == pad).any(axis=1)
            # One after the other, as the original adds them up.
            if not sum(self.data.efc_force[contacts.efc_address[both]]) > 0:
                return False
        return True

    def _get_curr_obs_combined_no_goal(self: Any) -> np.ndarray:
        """The hand, the gripper's opening, and position and quaternion of each object, padded with zeros."""
        observation = np.zeros(4 + self._obs_obj_max_len)
        observation[:3] = self.get_endeff_pos()
        apart = self.get_body_com("rightclaw") - self.get_body_com("leftclaw")
        observation[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        places, quaternions = self._get_pos_objects(), self._get_quat_objects()
        assert len(places) % 3 == 0 and len(quaternions) % 4 == 0
        at = 4
        for number in range(len(places) // 3):
            observation[at : at + 3] = places[3 * number : 3 * number + 3]
            observation[at + 3 : at + 7] = quaternions[4 * number : 4 * number + 4]
            at += 7
        return observation


def quick(task: type[SawyerXYZEnv]) -> dict[str, Any]:
    """Returns what a quick class has of its own: the task's function for quaternions, with another `Rotation`."""
    slow = task._get_quat_objects
    seen = {**slow.__globals__, "Rotation": _QuickRotation}
    return {"_get_quat_objects": types.FunctionType(slow.__code__, seen, slow.__name__, slow.__defaults__)}
