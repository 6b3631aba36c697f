"""Whether a checkpoint is sound enough for a sweep: what `run_all.py check` runs."""
