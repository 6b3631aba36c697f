"""Measured coverage of the intervals over test images: the tables of docs/statistics.md."""
