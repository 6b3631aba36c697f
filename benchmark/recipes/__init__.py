"""Recipe files: YAML, inheritance, overrides, error messages, and what a stage offers."""
