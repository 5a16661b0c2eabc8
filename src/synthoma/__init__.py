"""Synthetic tumors in CT, and what they are worth."""
