"""What every package needs and none owns, without torch: whole files, stop signals, pictures' looks."""
