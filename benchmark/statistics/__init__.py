"""Intervals, ranks, paired tests, and comparisons of two checkpoints."""
