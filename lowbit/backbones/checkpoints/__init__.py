"""Checkpoint files: read without running code, recognized by their tensors, loaded whole or refused."""
