"""Whether programs are downloaded: what MODELCAR_TOOLS says."""

from __future__ import annotations

import os
from enum import StrEnum

from modelcar.errors import refuse

VARIABLE = "MODELCAR_TOOLS"


class Mode(StrEnum):
    """auto: a release where its maker can be reached, else source. release, source: that and nothing else."""

    AUTO = "auto"
    RELEASE = "release"
    SOURCE = "source"


def mode() -> Mode:
    """Return what MODELCAR_TOOLS says; `auto` where it is unset or empty.

    Raises:
        InputError: it says something else.
    """
    told = os.environ.get(VARIABLE) or Mode.AUTO
    try:
        return Mode(told)
    except ValueError:
        raise refuse(
            VARIABLE,
            told,
            allowed="auto (releases where they can be reached, else source), release, source",
            fix=f"unset it, or set one of these: export {VARIABLE}=auto",
        ) from None
