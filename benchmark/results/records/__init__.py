"""Records of results: what the frame has of them, read once and kept in columns."""
