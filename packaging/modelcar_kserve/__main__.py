"""`python -m modelcar_kserve`: lock, fetch and look at models, in the current folder's project."""

import sys
from pathlib import Path

from modelcar_kserve.modelcar.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--project", str(Path.cwd()), *sys.argv[1:]]))
