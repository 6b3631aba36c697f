"""Transition-rate scheduling: any optimizer that is linear in its rate, told how many codes to change."""
