"""The Google Cloud side of a stack: registry, reader, cluster and GPU nodes."""
