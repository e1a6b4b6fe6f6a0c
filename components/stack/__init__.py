"""The program's own frame: preflight, one model, delivery, summary, outputs."""
