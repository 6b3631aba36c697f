"""Plots of detection jobs."""
