"""A detector as an object: its parts, its file, its initial weights, its quantization."""
