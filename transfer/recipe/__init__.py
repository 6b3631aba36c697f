"""The recipe of a transfer job: its fields, its checks, its labels on the board, its cost."""
