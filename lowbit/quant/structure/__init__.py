"""What the modules of a network read and compute, where their code has to be asked."""
