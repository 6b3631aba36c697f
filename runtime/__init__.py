"""What jobs need of the machine, without torch: whole files, and signals that ask to stop."""
