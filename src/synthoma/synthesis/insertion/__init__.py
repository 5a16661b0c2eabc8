"""A rendered tumor into a scan: blending, mass effect, the scan as it changes, and crops of it."""
