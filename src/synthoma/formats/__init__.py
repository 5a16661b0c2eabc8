"""One module per kind of image file; `files` is the way in."""
