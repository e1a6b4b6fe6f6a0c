"""`make release VERSION=X.Y.Z`: check, build, sign and tag one version.

- `versions`: SemVer, and how Python writes the same version;
- `repository`: what Git knows, and the commit that a release is made of;
- `checks`: what has to be true before anything is built;
- `artefacts`: wheel, sdist, checksums; `evidence`: bill of materials and provenance.

Nothing of the repository changes before all of it has worked: the release's commit is made beside the
branch, and branch and tag move to it at the end.
"""
