"""Programs as their makers publish them, downloaded where the internet is there.

`catalogue` says what is published where, `choice` whether to download, `web` and `image` fetch, `sums` and
`members` check and unpack, `obtain` puts a program in its place with a stamp that says where it came from.

A machine that unpacks a bundle imports this without a Python environment: only `image` uses more than the
standard library, and is imported where it is needed.
"""
