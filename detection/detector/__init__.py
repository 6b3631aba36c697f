"""Detectors: their parts, files, initial weights and quantization."""
