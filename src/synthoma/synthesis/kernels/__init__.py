"""The per-voxel arithmetic of rendering: compiled where numba is installed, in plain numpy where it is not."""
