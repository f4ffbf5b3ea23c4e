"""Thins the triangles of a model that is only drawn.

Vertices are put on a coarse grid per mesh and those in one cell become one; triangles that collapse go. What is left
is written in place, since the arrays of a compiled model cannot grow or shrink.
"""

import mujoco
import numpy as np


def thin_meshes(model: mujoco.MjModel, cells: int) -> None:
    """Thins every mesh of `model`, whose physics must not be used any more, to `cells` along its longest side.

    With 24 of them a cell is well below a pixel for a robot arm in an 84 x 84 image.
    """
    for mesh in range(model.nmesh):
        first_vertex, vertices = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        first_face, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        points = model.mesh_vert[first_vertex : first_vertex + vertices]
        corners = model.mesh_face[first_face : first_face + faces]
        kept = _kept_faces(points, corners, cells)
        if kept is None:
            continue
        indices, merged = kept
        last = first_face + len(indices)
        for array in (model.mesh_facenormal, model.mesh_facetexcoord):
            array[first_face:last] = array[first_face : first_face + faces][indices]
        model.mesh_face[first_face:last] = merged
        model.mesh_facenum[mesh] = len(indices)


def _kept_faces(points: np.ndarray, corners: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns which triangles stay, and their new corners; None for a mesh too small to be thinned."""
    size = float(np.ptp(points, axis=0).max())
    if size == 0.0:
        return None
    grid = np.floor((points - points.min(axis=0)) * (cells / size)).astype(np.int64)
    keys = (grid[:, 0] * (cells + 1) + grid[:, 1]) * (cells + 1) + grid[:, 2]
    _, representative, cell = np.unique(keys, return_index=True, return_inverse=True)
    merged = representative[cell][corners]
    a, b, c = merged.T
    alive = np.flatnonzero((a != b) & (b != c) & (a != c))
    if alive.size == 0:
        return None
    # Of the triangles that fell onto each other, one is enough.
    _, first = np.unique(np.sort(merged[alive], axis=1), axis=0, return_index=True)
    indices = alive[np.sort(first)]
    return indices, merged[indices]
