"""Guards where files of others come in: bounded reading, YAML, models of what people write."""
