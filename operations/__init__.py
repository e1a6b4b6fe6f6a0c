"""The runbook's operations on a stack that is deployed: each one command, with its reasons and fixes."""
