"""Tumors by hand-made rules."""
