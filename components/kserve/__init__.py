"""Components for what is declared in a cluster."""
