"""Whether a checkpoint is sound enough for a sweep: what `lowbit-bench check` runs."""
