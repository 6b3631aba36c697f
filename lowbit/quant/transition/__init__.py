"""Transition-rate scheduling: optimizers that control how many codes of quantized weights change."""
