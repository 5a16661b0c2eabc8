"""Folder conventions, a file each: which folders follow one, how its cases are read, and how it is written."""
