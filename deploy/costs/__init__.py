"""What a graph costs on this machine, and which machine that is."""
