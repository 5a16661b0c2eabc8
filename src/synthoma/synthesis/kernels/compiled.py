"""The compiled kernels, each as the function of its name in `reference`."""

from synthoma.synthesis.kernels.masks import (
    enclosed,
    largest_piece,
    near,
    packed,
    room_of,
    unpacked,
    widened,
    without_holes,
    without_holes_in_slices,
)
from synthoma.synthesis.kernels.moving import moved_hu
from synthoma.synthesis.kernels.sums import between, block_sums, means_of_plain, softened
from synthoma.synthesis.kernels.surfaces import depths_of, map_index, refined, shares_of, shell_ratios
from synthoma.synthesis.kernels.voxels import (
    blended,
    border_area_mm2,
    inside,
    mixed_noise,
    own_noise,
    shaded,
    wave_sums,
)

__all__ = [
    "between", "blended", "block_sums", "border_area_mm2", "depths_of", "enclosed", "inside", "largest_piece",
    "map_index", "means_of_plain", "mixed_noise", "moved_hu", "near", "own_noise", "packed", "refined", "room_of",
    "shaded", "shares_of", "shell_ratios", "softened", "unpacked", "wave_sums", "widened", "without_holes",
    "without_holes_in_slices",
]  # fmt: skip
