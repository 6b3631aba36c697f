"""Check that a checkpoint is sound enough for a sweep; run by `lowbit-bench check`."""
