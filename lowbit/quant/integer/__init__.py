"""Frozen networks on integers: grids of quantizers, products of codes, graphs that join them."""
