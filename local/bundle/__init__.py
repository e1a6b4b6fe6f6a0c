"""A bundle: all that `make up` builds or downloads, for a machine without registries.

`make bundle` packs it for one platform and one version of Python; `make up BUNDLE=FOLDER` unpacks it where
no registry, Go compiler, uv or package index can be reached. The folder holds

- `manifest.json`: what the bundle is for, what it was made from, and the size and SHA-256 of each part;
- `bundle.000`, `bundle.001`, …: the parts. Put together they are several `.tar.xz` archives, one after the
  other, so that a machine with many processors unpacks them side by side.

What unpacks (`unpack`, `target`, `manifest`, `parts`, `archives`) runs before the project has a Python
environment, so it uses the standard library only, of Python 3.11 or newer.
"""
