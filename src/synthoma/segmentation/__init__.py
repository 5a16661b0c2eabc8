"""Training a segmentation on real and synthetic tumors, and using it: CT in, masks on the same grid out."""
