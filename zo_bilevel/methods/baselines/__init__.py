"""Other people's optimizers behind the same seam, one file each."""
