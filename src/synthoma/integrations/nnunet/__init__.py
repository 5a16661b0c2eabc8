"""nnU-Net v2: a trainer whose training patches get tumors drawn anew."""
