"""Result files: written once, read through a cache, locked while a job runs, scored again."""
