"""Surface elements: the area of the surface through every 2 x 2 x 2 neighborhood of voxels.

The surface cuts the edges between a voxel inside and one outside in the middle (marching cubes). Where the cut
polygon is not flat, its area depends on how it is divided into triangles; the table divides it as surface-distance
0.1 does, whose numbers the field reports. It was found by running our own marching cubes over all divisions of all
neighborhoods and keeping, for each, the one with that package's area on three anisotropic grids.
"""

from __future__ import annotations

import numpy as np

from synthoma.volume import Array, Geometry

# Neighborhoods 1 to 127 (a neighborhood and its complement have one surface): triangles parted by points, each the
# area vector in eighths of the unit cube's faces, its components one digit each, 4 for 0.
_TRIANGLES = """
333 553 664.664 535 646.646 535.553 555.666.844 355 355.333 246.246 335.226.044 264.264 044.353.262 355.266.044
044.044 533 422.422 533.553 333.222.404 533.535 440.222.333 533.535.553 333.222.222.333 533.355 422.422.355
533.246.246 242.335.117.422 533.264.264 462.264.111.333 533.355.266.044 044.222.333 353 353.333 462.462 553.662.484
353.535 353.646.646 462.462.535 642.555.777.462 353.355 353.355.333 440.662.553 553.662.662.553 353.264.264
353.044.353.262 422.624.771.553 844.662.553 264.264 484.355.266 353.262.484 484.484 264.264.535 246.666.666.264
353.262.484.535 555.666.484 264.264.355 484.355.266.355 642.262.262.664 484.553.662 264.264.264.264 664.664.553
664.664.333 664.664 553 553.333 553.553 553.664.664 462.462 353.262.440 462.462.553 264.333.111.462 553.355
553.355.333 553.246.246 553.335.226.044 484.262.353 353.262.262.353 466.246.171.353 044.262.353 642.642 440.533.622
642.642.553 624.222.222.642 553.662.440 440.440 553.662.440.553 333.222.440 642.642.355 440.533.622.355
642.642.246.246 242.242.535 264.662.662.242 440.353.262 242.242.333 242.242 553.353 553.353.333 553.462.462
553.553.662.484 462.462.353 353.262.440.353 462.462.462.462 422.422.533 553.353.355 553.353.355.333 553.440.662.553
333.533.535 484.262.353.353 333.533.553 333.422.422 333.533 844.622.533 533.622.622.533 426.646.711.533 404.622.533
624.553.771.422 533.622.440 422.422.333 422.422 844.622.533.355 333.535.553 333.646.646 333.535 333.664.664 333.553
333.333 333
"""


def codes(mask: Array) -> Array:
    """The neighborhood (uint8) around every corner of a mask (bool), one more along each axis than voxels.

    Corner c lies between the voxels c - 1 and c; outside the array all is empty. The voxel at c - 1 on every axis
    counts 128, that at c counts 1.
    """
    padded = np.pad(mask.view(np.uint8), 1)
    along_k = (padded[:, :, :-1] << 1) | padded[:, :, 1:]
    along_j = (along_k[:, :-1] << 2) | along_k[:, 1:]
    found: Array = (along_j[:-1] << 4) | along_j[1:]
    return found


def areas_mm2(geometry: Geometry) -> Array:
    """The area (256,) of the surface in each neighborhood on this grid, sheared ones included."""
    matrix = geometry.affine[:3, :3]
    faces = np.linalg.det(matrix) * np.linalg.inv(matrix).T  # takes the unit cube's area vectors to mm2
    table = np.zeros(256)
    for code, word in enumerate(_TRIANGLES.split(), start=1):
        triangles = np.array([[int(digit) - 4 for digit in triangle] for triangle in word.split(".")]) / 8
        table[code] = table[255 - code] = np.linalg.norm(triangles @ faces.T, axis=1).sum()
    return table
