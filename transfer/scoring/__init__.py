"""Predictions, accuracies, and splits that may be read once."""
