"""A key pair of cosign's, for tests that sign."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PASSWORD = "correct horse"


def make_key_pair(cosign: Path, folder: Path, name: str) -> None:
    """Write NAME.key, which PASSWORD opens, and NAME.pub."""
    subprocess.run(
        [str(cosign), "generate-key-pair", "--output-key-prefix", name],
        cwd=folder,
        env={**os.environ, "COSIGN_PASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )
