"""Fake quantization as functions: eager, compiled by torch, and in C."""
