"""Stand-in for `pulumi-resource-kubernetes`, the provider plugin of pulumi-kubernetes 4.34.2.

It manages objects of a real API server by server-side apply and Helm releases by the real Helm, and keeps
the same shape of state as the official plugin, so that a stack can be handed from one to the other.
"""
