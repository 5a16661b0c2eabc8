"""How good predicted tumors are: by voxel, surface, lesion and patient, with intervals, and which model is better."""
