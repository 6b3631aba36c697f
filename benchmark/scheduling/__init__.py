"""Which job runs next, how long it should take, and what a dry run reports."""
