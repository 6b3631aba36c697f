"""Image sets: names, file locations, splits."""
