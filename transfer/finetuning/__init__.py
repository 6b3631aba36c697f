"""Training of the whole network at one or several precisions."""
