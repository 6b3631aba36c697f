"""Recognize, safely read, load, inspect and convert checkpoint files."""
