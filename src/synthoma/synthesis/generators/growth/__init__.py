"""Tumors that grow from a seed through the scan's own tissue."""
