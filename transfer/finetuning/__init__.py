"""Training the whole network at one precision or several."""
