"""Checkpoint files: recognize, read without running their code, load, inspect, convert."""
