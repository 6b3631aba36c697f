"""What is quantized, how, and with how many bits: policies as data."""
