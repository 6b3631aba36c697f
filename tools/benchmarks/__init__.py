"""Cases of `lowbit-bench bench`, one file a subject."""
