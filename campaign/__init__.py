"""Faults, bad input and load, tried on the local platform: `make campaign`, `make soak`."""
