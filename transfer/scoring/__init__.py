"""Predictions, accuracies, and test splits that can be read only once."""
