"""Quantized networks as integer graphs: ONNX models, what runs them, and what they cost there."""
