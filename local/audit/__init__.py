"""What is known to be wrong with what we build on, and with what we put into clusters: `make audit`."""
