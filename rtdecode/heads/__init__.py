"""What the encoder's outputs mean: items of a gallery, classes, or the embedding itself."""
