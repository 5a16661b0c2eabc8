"""Tumors of finished plans rendered with torch, many at a time, on a GPU where there is one."""
