"""Fold results over seeds, pretrainings and data sets, with spread, intervals and ranks."""
