"""Entry of the policy pack, for `pulumi preview --policy-pack policy`."""

from __future__ import annotations

import sys
from pathlib import Path

# `python policy` puts the folder itself on the path; its parent is what makes it a package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from policy.pack import serve  # noqa: E402 - found through the line above

if __name__ == "__main__":
    serve()
