"""Policy pack: what a stack that serves modelcars on GKE must not do. See README.md for the rules."""
