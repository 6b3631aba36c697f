"""Fake-quantization functions: eager, compiled by torch, and in C."""
