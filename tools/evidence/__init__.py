"""Results that the repository keeps under docs/evidence, and the tables of the documents made of them."""
