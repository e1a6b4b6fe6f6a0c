"""`modelcar:readAhead`: a pod reads its model into the node's memory while its server is being imported.

A server on a GPU spends half a minute on imports before it opens the first file of the weights, and the disk
has nothing to do all that time. What is read lies in the page cache, which Linux counts as the pod's memory
and takes back where a process needs it: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from __future__ import annotations

#: Files that are read at a time: one stream does not fill a fast disk.
LANES = 4
#: What the pod's log says of it.
SAID = "reading {folder} ahead"

# The lanes belong to the container's first process, and not to the server, which waits for its own children
# only. No file is read twice, and each lane begins with one of those that a server opens first.
_LANES = f"""
modelcar_read_ahead() {{
  lane=0
  while [ "$lane" -lt {LANES} ]; do
    {{
      number=0
      for file in "$1"/* "$1"/*/*; do
        if ! [ -f "$file" ]; then continue; fi
        if [ "$((number % {LANES}))" = "$lane" ]; then cat "$file" || break; fi
        number=$((number + 1))
      done
    }} </dev/null >/dev/null 2>&1 &
    lane=$((lane + 1))
  done
}}
"""


def script(folder: str) -> str:
    """Return the part of the start script that begins to read a model; folder: as the pod sees it."""
    return f"{_LANES}(modelcar_read_ahead {folder})\necho '{SAID.format(folder=folder)}'\n"


def to_its_end(folder: str) -> str:
    """Return a script that reads a model as pods do, and ends once all of it is read; for measurements."""
    return f"{_LANES}modelcar_read_ahead {folder}\nwait\n"
