"""`make gpu-report`: the whole way of the product on this machine's GPU, measured beside bare vLLM.

What runs here is what anyone runs: `make up`, `make validate`, `make runbook`, `make smoke`, and then
models of true dimensions, from their weights to tokens. Each step has a bound of its own and is written
down as soon as it is over, so that a run that is stopped leaves what it has, and `--resume` goes on from
there.

- `runner` runs steps; `steps` says what they are;
- `children` runs programs, and ends whatever is still running;
- `site` is the platform, and a Pulumi project of the report's own on it, so that no committed file changes;
- `bare` runs the model server without Kubernetes; `load` asks either of them;
- `page` writes the report.

Without a GPU, `--cpu` does the same with a small model and without goals: a test does that.
"""
