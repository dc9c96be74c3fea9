"""What runs the network: one protocol, and a file for each program that can."""
