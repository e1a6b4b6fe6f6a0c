"""Faults and bad input, tried on the local platform: `make campaign`."""
