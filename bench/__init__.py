"""How fast a model becomes a pushed, pinned image, beside other ways to do it. `python -m bench run`."""
