"""Tumors for training patches: drawn anew in every epoch, or those of a manifest."""
