"""Shared helpers without torch: atomic files, stop signals, plot style, text."""
