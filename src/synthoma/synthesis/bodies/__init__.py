"""Shapes of tumors: masses in solid organs, and thickenings of a hollow organ's wall."""
