"""Recipe of a transfer job: fields, checks, board labels, cost."""
