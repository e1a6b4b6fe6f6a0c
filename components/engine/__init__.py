"""How resources are declared, whatever they are: options, hooks, threads. Knows Pulumi, and no setting."""
