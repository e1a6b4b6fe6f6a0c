"""What Git knows of a checkout, and the commit that a release is made of."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.release.versions import Version
from modelcar.errors import refuse

PYPROJECT = "pyproject.toml"
_WRITTEN = re.compile(r'(?m)^version = "([^"]*)"$')


@dataclass(frozen=True)
class Repository:
    """A checkout. folder: of it."""

    folder: Path

    def git(
        self,
        *arguments: str,
        text: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Run Git, and return what it says; text: what it reads; variables: more of its environment.

        Raises:
            InputError: Git is missing, or does not do it.
        """
        return self._run(arguments, (text or "").encode(), variables).decode().strip()

    def _run(self, arguments: tuple[str, ...], text: bytes, variables: Mapping[str, str] | None) -> bytes:
        shown = f"git {' '.join(arguments)}"
        try:
            result = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                env={**os.environ, **(variables or {})},
                input=text,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise refuse("git", "not on PATH", allowed="Git 2.20 or newer", fix="install git") from None
        if result.returncode:
            said = result.stderr.decode(errors="replace").strip() or f"exit status {result.returncode}"
            raise refuse(shown, said, allowed="a checkout in which that works", fix=f"run it: {shown}")
        return result.stdout

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def changes(self) -> list[str]:
        """Return what differs from the commit, and what is in no commit, a line each."""
        return self._run(("status", "--porcelain"), b"", None).decode().splitlines()

    def tags(self, commit: str = "") -> list[str]:
        """Return the names of all tags, or of those that a commit has in its history."""
        return self.git("tag", "--list", *(["--merged", commit] if commit else [])).splitlines()

    def time(self, commit: str) -> str:
        """Return when a commit was made, in seconds since 1970."""
        return self.git("show", "-s", "--format=%ct", commit)

    def source(self) -> str:
        """Return the address that others clone from, without credentials; empty where it is no public one."""
        remotes = self.git("remote").splitlines()
        url = self.git("remote", "get-url", "origin") if "origin" in remotes else ""
        found = re.fullmatch(
            r"(?:https://(?:[^@/]*@)?|(?:ssh://)?git@)([\w.-]+)[:/]([\w./-]+?)(?:\.git)?/?", url
        )
        return f"https://{found[1]}/{found[2]}" if found else ""

    def written(self, commit: str) -> str:
        """Return the version that a commit's pyproject.toml has.

        Raises:
            InputError: it has none.
        """
        found = _WRITTEN.search(self._pyproject(commit))
        if found is None:
            raise refuse(
                f"{PYPROJECT}: version", "not there", allowed='version = "X.Y.Z"', fix="put it into [project]"
            )
        return found[1]

    def _pyproject(self, commit: str) -> str:
        return self._run(("show", f"{commit}:{PYPROJECT}"), b"", None).decode()

    def commit(self, version: Version, head: str) -> str:
        """Return a commit whose pyproject.toml has the version: `head`, or one beside the branch, onto it.

        The same head gives the same commit for one author: it has the head's own time.

        Raises:
            InputError: Git does not know who the author is.
        """
        if self.written(head) == version.python:
            return head
        changed = _WRITTEN.sub(f'version = "{version.python}"', self._pyproject(head), count=1)
        time = f"{self.time(head)} +0000"
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            blob = self.git("hash-object", "-w", "--stdin", text=changed)
            self.git("read-tree", head, variables=index)
            self.git("update-index", "--cacheinfo", f"100644,{blob},{PYPROJECT}", variables=index)
            tree = self.git("write-tree", variables=index)
        when = {"GIT_AUTHOR_DATE": time, "GIT_COMMITTER_DATE": time}
        return self.git("commit-tree", tree, "-p", head, "-m", f"Release {version}", variables=when)

    def export(self, commit: str, target: Path) -> None:
        """Write a commit's files into a folder: nothing that is in no commit gets into a release."""
        # Neither line endings nor modes are to depend on how a machine's Git is set up.
        plain = ("-c", "core.autocrlf=false", "-c", "tar.umask=0022")
        packed = self._run((*plain, "archive", "--format=tar", commit), b"", None)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(target, filter="data")

    def publish(self, commit: str, version: Version) -> None:
        """Tag the release's commit, and move the branch to it: both, or neither.

        Raises:
            InputError: the tag is there, or cannot be made; or the branch has moved since the release began.
        """
        # The tag first: it can fail by more (a key that signs tags), and is easily taken back.
        self.git("tag", "--annotate", version.tag, "--message", f"Release {version}", commit)
        try:
            self.git("merge", "--quiet", "--ff-only", commit)
        except BaseException:
            self.git("tag", "--delete", version.tag)
            raise


@dataclass(frozen=True)
class Release:
    """What is released. commit: that it is built of; uv: the program that builds."""

    repository: Repository
    version: Version
    commit: str
    uv: str
