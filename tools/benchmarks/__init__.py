"""Cases of `lowbit-bench bench`, one file per subject."""
