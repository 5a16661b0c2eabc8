"""Healthy CT + organ mask + recipe + seed -> CT with tumors, their masks and their manifest."""
