"""How real synthetic tumors look: features of real and synthetic lesions, distances between them, one page."""
