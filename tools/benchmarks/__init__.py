"""Cases of `tools/bench.py`, one file a subject."""
