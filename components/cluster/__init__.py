"""What a live cluster is asked: access, pods, rollout, smoke test, what its KServe and Knative allow."""
