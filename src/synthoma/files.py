"""Image files to volumes and back; the one way in to every format."""
