"""Variables that the hub's client reads as numbers while it is imported; import this before it.

With one that is no number it cannot be imported. So such a one is taken out here, and whoever asks a hub is
told (`modelcar.hub`).
"""

from __future__ import annotations

import os
import re

#: Name and value of what was taken out.
NO_NUMBERS = {
    name: os.environ.pop(name)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*|", os.environ.get(name, ""))
}
