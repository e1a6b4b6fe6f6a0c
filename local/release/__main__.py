"""Command line of releases: `python -m local.release VERSION [--key KEY] [--out FOLDER] [--dry-run]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local.instance import PROJECT
from local.release import artefacts, checks
from local.release.evidence import sha256
from local.release.repository import Release, Repository
from local.release.versions import Version, parse
from modelcar import signing
from modelcar.errors import InputError, refuse


def main(arguments: Sequence[str] | None = None) -> int:
    """Release one version, or do what its workflow does; return 0, or 1 where something is not ready."""
    options = _parser().parse_args(arguments)
    repository = Repository(options.project)
    try:
        version = parse(options.version)
        if options.notes:
            print(_notes(repository, version))
        elif options.artefacts:
            _make_again(repository, version, options)
        else:
            _release(repository, version, options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.release", description=__doc__)
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="X.Y.Z, or X.Y.Z-rc.N")
    parser.add_argument("--key", help="that cosign signs with: a file, or a URI such as gcpkms://…")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: .local/release/VERSION")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run", action="store_true", help="do all of it but the version's commit and the tag"
    )
    what.add_argument(
        "--artefacts", action="store_true", help="only build what is tagged already, as the workflow does"
    )
    what.add_argument("--notes", action="store_true", help="only print the version's part of CHANGELOG.md")
    parser.add_argument(
        "--identity", action="store_true", help="sign by this machine's identity, as the workflow does"
    )
    return parser


def _notes(repository: Repository, version: Version) -> str:
    found = checks.notes((repository.folder / checks.CHANGELOG).read_text(), version)
    if found is None:
        raise refuse(
            checks.CHANGELOG, f"no section for {version}", allowed=f"`## {version} (…)`", fix="write it"
        )
    return found


def _release(repository: Repository, version: Version, options: argparse.Namespace) -> None:
    """Check, build, sign, and only then write version and tag."""
    uv = artefacts.find_uv()
    _require_means(options)
    print(f"── checks of {version}", flush=True)
    commit = repository.commit(version, checks.require(repository, version))
    folder = _build(Release(repository, version, commit, uv), options)
    if options.dry_run:
        print(f"── nothing is written or tagged: a dry run of {commit[:12]}; the files are in {folder}")
        return
    repository.publish(commit, version)
    print(f"── {version.tag} is {commit[:12]}; the files are in {folder}")
    print(f"next: git push --follow-tags; {_next(version)}")


def _make_again(repository: Repository, version: Version, options: argparse.Namespace) -> None:
    """Build what a tag has, for the workflow that publishes it."""
    _require_means(options)
    head = repository.head
    tagged = repository.git("tag", "--list", version.tag) and repository.git("rev-list", "-1", version.tag)
    if tagged != head:
        raise refuse(
            version.tag,
            f"is {tagged[:12]}, and {head[:12]} is checked out" if tagged else "there is no such tag",
            allowed="the tag's own commit",
            fix=f"git checkout {version.tag}" if tagged else f"make release VERSION={version}",
        )
    if (written := repository.written(head)) != version.python:
        raise refuse(
            "pyproject.toml: version",
            written,
            allowed=f"{version.python}, as the tag says",
            fix="`make release` writes the version and makes the tag; a tag by hand does not",
        )
    _build(Release(repository, version, head, artefacts.find_uv()), options)


def _require_means(options: argparse.Namespace) -> None:
    """Look at once for what is needed in the end: a folder, and what signs."""
    if options.out:
        artefacts.require_empty(options.out)
    if options.key or options.identity:
        signing.require(options.key)


def _build(release: Release, options: argparse.Namespace) -> Path:
    """Build and sign beside the folder, which so keeps what it has where something fails."""
    folder: Path = (options.out or options.project / ".local/release" / str(release.version)).absolute()
    print(f"── wheel, sdist, bill of materials, provenance of {release.commit[:12]}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        built = Path(temporary)
        made = artefacts.build(release, built)
        if options.key or options.identity:
            made += artefacts.sign([built / artefacts.CHECKSUMS, built / artefacts.PROVENANCE], options.key)
        for path in made:
            print(f"  {sha256(path)}  {path.name}")
        if options.out:
            artefacts.require_empty(folder)  # still: the checks took minutes
        artefacts.put(built, folder)
    if not options.key and not options.identity:
        print(f"  not signed: no --key, so nobody can tell who made {artefacts.CHECKSUMS}")
    return folder


def _next(version: Version) -> str:
    """Return what becomes of the version in pyproject.toml."""
    if version.kind:  # X.Y.Z.dev0 would be older than it
        return f"pyproject.toml keeps its version until {version.base} or the next pre-release of it"
    following = (
        f"{version.line}.{version.patch + 1}" if version.patch else f"{version.major}.{version.minor + 1}.0"
    )
    return f"then write the next version into pyproject.toml ({following}.dev0)"


if __name__ == "__main__":
    sys.exit(main())
