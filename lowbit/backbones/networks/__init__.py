"""Backbones by name, and their feature pyramids."""
