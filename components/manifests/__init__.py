"""Kubernetes objects as plain data: pure functions of settings. For components, GitOps, smoke test."""
