"""Pictures of detection jobs."""
