"""The embedded local platform: tools, processes, and the `make up` flow."""
