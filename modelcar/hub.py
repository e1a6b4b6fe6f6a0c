"""Models in a hub: the files of a repository at a commit, and their bytes. By the hub's own client."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import httpx2

from modelcar.hub_environment import NO_NUMBERS

# isort: split
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
)
from huggingface_hub.utils import logging as hub_logging

from modelcar import hub_address, layouts
from modelcar.choosing import PICKLE_SUFFIXES, left_out, none_chosen, unnamed
from modelcar.connections import trusted
from modelcar.errors import InputError, Problem, UnansweredError, refuse
from modelcar.paths import fault_of_name, printable, same_but_for_case
from modelcar.weights import MAX_JSON, needs_content

#: Size of a file that the hub tells none of; never of one that is taken.
UNKNOWN = -1

#: Bytes that the client hands over at a time; a cut loses less than one piece. (Its own default is 10 MB.)
PIECE = 2**20

#: Seconds before each further try of a lookup, and of a download that brought nothing; a try that brings
#: bytes starts anew.
WAITS = (1.0, 2.0, 4.0, 8.0)
#: Seconds that a lookup waits at most when the hub asks it to.
LONGEST_WAIT = 30.0
#: Times that a server may send a file from its start again without a byte that is new.
RESTARTS = 5

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. size: bytes. sha256: where the hub tells it, which it does of large files."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class HubModel:
    """A repository at a commit.

    revision: the commit, 40 hexadecimal digits. license: as the model card has it, None where it says none.
    files: the chosen ones, by path. skipped: (path, why) of the others.
    doubts: what a user should know of the layout.
    """

    repository: str
    revision: str
    license: str | None
    files: tuple[RemoteFile, ...]
    skipped: tuple[tuple[str, str], ...]
    doubts: tuple[str, ...] = ()


def resolve(
    repository: str,
    revision: str = "main",
    *,
    endpoint: str | None = None,
    allow: Sequence[str] = (),
    ignore: Sequence[str] = (),
    allow_pickle: bool = False,
    layout: str = "auto",
    extra: Collection[str] = (),
) -> HubModel:
    """Look a model up: the commit that a branch or tag is at, and the files to take.

    Args:
        repository: OWNER/NAME.
        revision: branch, tag or commit.
        endpoint: address of the hub or a mirror; None for HF_ENDPOINT, or the hub itself.
        allow: patterns of the files to take (`*` also matches `/`); all but duplicates where there are none.
        ignore: patterns of files to leave out.
        allow_pickle: take pickled weights where they are chosen; loading them can run any code.
        layout: one of `layouts.LAYOUTS`.
        extra: paths of files that the model gets beside those of the repository.

    Raises:
        InputError: there is no such model or revision, it may not be read, the hub cannot be reached, or its
            files are unfit.
    """
    _check_way(endpoint)
    with _Words(repository, revision, endpoint):
        if repository.count("/") != 1:  # the hub has some without owner; a lock cannot name them
            raise HFValidationError
        info = _look_up(repository, revision, endpoint)
    if not _COMMIT.fullmatch(str(info.sha)):
        raise _no_hub(repository, revision, endpoint)
    files = []
    for sibling in info.siblings or []:
        size, lfs = sibling.size, sibling.lfs
        files.append(
            RemoteFile(
                sibling.rfilename,
                UNKNOWN if size is None else size,
                str(lfs.sha256) if lfs is not None else None,
            )
        )
    chosen, skipped = _choose(files, allow, ignore)
    if not chosen:
        raise none_chosen(f"{repository}@{revision}", [file.path for file in files], "repository")
    _check(repository, chosen, dict(skipped), extra, allow_pickle=allow_pickle, layout=layout)
    taken = {*extra, *(file.path for file in chosen)}
    indexes = [f for f in chosen if "/" not in f.path and f.path.endswith(".safetensors.index.json")]
    named = [
        _check_index(repository, str(info.sha), index, taken, dict(skipped), endpoint) for index in indexes
    ]
    if indexes and None not in named:
        _check_unnamed(repository, taken, {name for names in named for name in names or ()})
    card = info.card_data
    license = getattr(card, "license", None) if card is not None else None
    return HubModel(
        repository,
        str(info.sha),
        str(license) if isinstance(license, str) and license else None,
        tuple(sorted(chosen, key=lambda file: file.path)),
        tuple(skipped),
        layouts.doubts([*extra, *(file.path for file in chosen)], layout),
    )


def _check_way(endpoint: str | None) -> None:
    """Refuse what the hub's client would fail by, or send the user's token in the clear to."""
    if NO_NUMBERS:
        [(name, value), *_] = NO_NUMBERS.items()
        raise refuse(name, repr(value), allowed="seconds, a whole number", fix="correct it, or unset it")
    if fault := hub_address.fault_of_address(endpoint or constants.ENDPOINT, asked_here=True):
        raise hub_address.refused(endpoint, fault)
    _require_authorities()


@cache
def _require_authorities() -> None:
    """Refuse, by the variable's name, what the hub's client would not name; once, as it takes a while."""
    trusted()


def _look_up(repository: str, revision: str, endpoint: str | None) -> ModelInfo:
    """Ask for a model's description; again while the hub is busy, which the client does for files only."""
    waits = iter(WAITS)
    while True:
        try:
            return HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True)
        except HfHubHTTPError as error:
            status = error.response.status_code
            wait = next(waits, None) if status == 429 or status >= 500 else None
            if wait is None:
                raise
            asked = error.response.headers.get("Retry-After", "")
            time.sleep(max(wait, min(float(asked), LONGEST_WAIT)) if asked.isdecimal() else wait)
        except (HFValidationError, UnicodeError):
            raise
        except (KeyError, TypeError, AttributeError, ValueError):
            # A login page, or another kind of server: the client trips over what is not there.
            raise _no_hub(repository, revision, endpoint) from None


def _no_hub(repository: str, revision: str, endpoint: str | None) -> InputError:
    found = f"{_shown(endpoint)} answers something that is no model's description"
    fix = "check the address (--endpoint, HF_ENDPOINT), and that no proxy wants a login"
    allowed = "a model hub, or a mirror with its API"
    return UnansweredError([Problem(f"{repository}@{revision}", found, allowed, fix)])


def _shown(endpoint: str | None) -> str:
    """Return a hub's address without a user's name and password."""
    return _without_user(endpoint or constants.ENDPOINT)


def _without_user(text: str) -> str:
    return printable(re.sub(r"//[^/\s]*@", "//", text))


def download(
    repository: str,
    revision: str,
    path: str,
    sink: Callable[[bytes], Any],
    *,
    size: int,
    start: int = 0,
    endpoint: str | None = None,
) -> None:
    """Hand the bytes of a file to a sink, from a byte on to its end. Goes on after a cut where it was.

    Args:
        repository: OWNER/NAME.
        revision: commit.
        path: of the file in it.
        sink: called with each piece, and with nothing now and then: what it raises ends the download.
        size: bytes of the whole file.
        start: bytes that are there already.
        endpoint: as in `resolve`.

    Raises:
        InputError: the hub refuses it, has another size, or cannot be reached after several tries.
    """
    _check_way(endpoint)
    disable_progress_bars("huggingface_hub.http_get")
    constants.DOWNLOAD_CHUNK_SIZE = PIECE
    hub_logging.set_verbosity(logging.ERROR)  # what is wrong is said by the error below
    url = hf_hub_url(repository, path, revision=revision, endpoint=endpoint)
    received = _Received(sink, start, size, f"{repository}/{printable(path)}")
    waits = iter(WAITS)
    with _Words(repository, revision, endpoint, path):
        while received.position < size:
            before = received.position
            received.begin()
            try:
                http_get(
                    url,
                    cast(Any, received),
                    resume_size=received.position,
                    expected_size=size,
                    # Part of a compressed answer is no part of the file, and some servers send all instead.
                    headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                    displayed_filename=path,
                )
            except (httpx2.TransportError, OSError) as error:
                if not _is_transient(error):
                    raise
                waits = iter(WAITS) if received.position > before else waits
                wait = next(waits, None)
                if wait is None:
                    raise
                _wait(wait, sink)


def _wait(seconds: float, sink: Callable[[bytes], Any]) -> None:
    """Wait before another try; the sink, called with nothing, raises when the whole run is to end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sink(b"")
        time.sleep(0.1)


class _Received:
    """What http_get takes for its file: bytes go to a sink, and those that came before are passed over."""

    def __init__(self, sink: Callable[[bytes], Any], start: int, size: int, name: str) -> None:
        self.position = start
        self._sink = sink
        self._size = size
        self._name = name
        self._pass = 0
        self._restarts = 0

    def begin(self) -> None:
        """A request for the bytes from `position` on begins, whatever was left of the one before."""
        self._pass = self._restarts = 0

    def tell(self) -> int:
        """Return where in the file the answer is, which is before `position` while bytes are passed over."""
        return self.position - self._pass

    def seek(self, position: int) -> int:
        """A server that ignores ranges sends the file from its start; what is known is not taken again."""
        self._restarts += 1
        if self._restarts > RESTARTS:  # the client would go on for ever: it counts known bytes as new ones
            raise refuse(
                self._name,
                f"the server sends it from the start each time, and breaks off before byte {self.position}",
                allowed="a server that sends parts of a file (HTTP ranges), or all of it at once",
                fix="name the hub itself, or another mirror (--endpoint)",
            )
        self._pass = self.position - position
        return position

    def truncate(self) -> None:
        """Nothing is taken back."""

    def write(self, data: bytes) -> int:
        passed = min(self._pass, len(data))
        self._pass -= passed
        if self.position + len(data) - passed > self._size:
            raise refuse(
                self._name,
                "more bytes come than the file has",
                allowed=f"{self._size} bytes",
                fix="fetch it again; if it stays so, the mirror is not to be trusted",
            )
        if rest := data[passed:]:
            self._sink(rest)
            self.position += len(rest)
            self._restarts = 0
        return len(data)


def _is_transient(error: Exception) -> bool:
    """Tell whether another try may help: servers in trouble, cuts, short answers (http_get: OSError)."""
    if isinstance(error, HfHubHTTPError):
        return error.response is None or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError) or "Consistency check" in str(error)


def _choose(
    files: Sequence[RemoteFile], allow: Sequence[str], ignore: Sequence[str]
) -> tuple[list[RemoteFile], list[tuple[str, str]]]:
    """Return the files to take, and (path, why) of those that are left out."""
    why = left_out([file.path for file in files], allow, ignore)
    chosen = [file for file in files if file.path not in why]
    return chosen, [(file.path, why[file.path]) for file in files if file.path in why]


def _check(
    repository: str,
    files: Sequence[RemoteFile],
    skipped: Mapping[str, str],
    extra: Collection[str],
    *,
    allow_pickle: bool,
    layout: str,
) -> None:
    problems = []
    for file in files:
        key = f"{repository}/{printable(file.path)}"
        if fault := fault_of_name(file.path) or ("\\" in file.path and _BACKSLASH) or None:
            problems.append(Problem(key, *fault))
        elif file.path.lower().endswith(PICKLE_SUFFIXES) and not allow_pickle:
            problems.append(
                Problem(
                    key,
                    "pickled weights: loading them can run any code that their author put in",
                    "weights in safetensors",
                    "leave it out (--ignore), convert it, or say --allow-pickle if you trust it",
                )
            )
        elif file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            problems.append(
                Problem(
                    key,
                    f"{file.size / 1e9:.1f} GB in one file",
                    f"files up to {constants.MAX_HTTP_DOWNLOAD_SIZE / 1e9:.0f} GB, the hub's limit",
                    'download it by other means, save it with max_shard_size="5GB", and lock that folder',
                )
            )
        elif file.size < 0:
            problems.append(
                Problem(
                    key,
                    "the hub does not tell its size",
                    "a hub that tells each file's size",
                    "name the hub itself, or another mirror (--endpoint)",
                )
            )
        elif file.size == 0 and needs_content(file.path):
            problems.append(Problem(key, "0 bytes", "a file with content", "leave it out (--ignore)"))
    problems += [
        Problem(
            f"{repository}/{printable(file.path)}",
            "in the repository, and among the extra files",
            "one of the two",
            f"take the extra file out, or leave the repository's out: --ignore {printable(file.path)}",
        )
        for file in files
        if file.path in extra
    ]
    paths = [*(file.path for file in files), *extra]
    problems += [
        Problem(f"{repository}/{printable(path)}", value, allowed, fix)
        for path, value, allowed, fix in layouts.faults(paths, skipped, layout)
    ]
    problems += [
        Problem(
            f"{repository}/{printable(path)}",
            f"the same name as {printable(other)} where case does not count",
            "names that stay different on every disk",
            "leave one out (--ignore)",
        )
        for path, other in same_but_for_case(paths)
    ]
    if problems:
        raise InputError(problems)


def _check_index(
    repository: str,
    revision: str,
    index: RemoteFile,
    taken: Collection[str],
    skipped: Mapping[str, str],
    endpoint: str | None,
) -> set[str] | None:
    """Compare an index, which is small, with the names of the weights, before they are downloaded.

    Return the names that are in it. What cannot be read as an index is None, and told after the download,
    with all else that is wrong.
    """
    if index.size > MAX_JSON:
        return None
    content = bytearray()
    download(repository, revision, index.path, content.extend, size=index.size, endpoint=endpoint)
    try:
        named = set(map(str, set(json.loads(content.decode())["weight_map"].values())))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    lost = sorted(named - set(taken))
    if lost:
        found = f"left out: {skipped[lost[0]]}" if lost[0] in skipped else "not in the repository"
        raise refuse(
            f"{repository}/{index.path}",
            f"it names {len(lost)} files that are not chosen, {printable(lost[0])} for one ({found})",
            allowed="an index that names files that are there",
            fix=f"take them (--allow), or another revision; if it is stale and the weights are complete "
            f"without these, leave it out (--ignore {index.path})",
        )
    return named


def _check_unnamed(repository: str, taken: Collection[str], named: Collection[str]) -> None:
    """Refuse weights that no index names, before they are downloaded; `modelcar.weights` would afterwards."""
    if found := unnamed(taken, named, "."):
        raise refuse(
            f"{repository}/{printable(found[0])}",
            f"{len(found)} safetensors are chosen that no index names, {printable(found[0])} for one",
            allowed="the shards of the index and no other safetensors",
            fix=f"leave them out (--ignore {printable(found[0])}): a server would not load them; or take the "
            "index that names them",
        )


def _is_unanswered(error: Exception) -> bool:
    """Tell whether the hub, or the way to it, fails, whatever was asked for."""
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return error.response.status_code == 429 or error.response.status_code >= 500
    return not isinstance(error, HFValidationError | httpx2.InvalidURL | UnicodeEncodeError)


_BACKSLASH = ("a path with a backslash", "paths with /", "leave it out (--ignore)")


class _Words:
    """Turns the library's errors into words. Tokens are in none of them."""

    def __init__(self, repository: str, revision: str, endpoint: str | None, path: str = "") -> None:
        self._key = f"{repository}@{revision[:12]}" + (f" {printable(path)}" if path else "")
        self._hub = _shown(endpoint)
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError) or not isinstance(
            error,
            (
                HfHubHTTPError,
                HFValidationError,
                httpx2.HTTPError,
                httpx2.InvalidURL,
                UnicodeEncodeError,
                OSError,
            ),
        ):
            return
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, HfHubHTTPError):
            return  # the disk's, not the hub's
        found, allowed, fix = self._said(error)
        kind = UnansweredError if _is_unanswered(error) else InputError
        raise kind([Problem(self._key, found, allowed, fix)]) from None

    def _said(self, error: Exception) -> tuple[str, str, str]:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response else 0
        missing = status == 404 and not self._path  # mirrors leave out the code that says what is
        there = "a model that this machine may read"
        login = "accept its terms at the hub, then set HF_TOKEN (or run `hf auth login`)"
        if isinstance(error, HFValidationError):
            return "not the name of a repository", "OWNER/NAME", "copy it from the model's page"
        if isinstance(error, httpx2.InvalidURL):
            return f"{self._hub} is no address", "https://HOST", "correct it (--endpoint, HF_ENDPOINT)"
        if isinstance(error, UnicodeEncodeError):  # of a request's header; only the token is the user's
            return "the token holds a character that none has", "hf_…", "set HF_TOKEN to a token of the hub"
        if isinstance(error, HfHubHTTPError) and "Invalid credentials" in error.response.headers.get(
            "X-Error-Message", ""
        ):
            return f"{self._hub} does not accept the token", there, "correct HF_TOKEN, or unset it"
        if isinstance(error, GatedRepoError):
            return f"{self._hub} has it behind terms that are not accepted", there, login
        if isinstance(error, RevisionNotFoundError):
            return "no such revision", "a branch, tag or commit of the repository", "check the name"
        if isinstance(error, RepositoryNotFoundError) or status in {401, 403} or missing:
            return (
                f"{self._hub} has none, or not for everybody",
                there,
                f"check the name; or {login}",
            )
        if status == 404:
            return "no such file at this commit", "the files that were locked", "lock the model again"
        if status == 416:
            return (
                f"{self._hub} has fewer bytes of it than were told",
                "the file that was looked up",
                "fetch it again; if it stays so, the mirror is not to be trusted",
            )
        if status == 429:
            return f"{self._hub} asks for fewer requests (429)", there, "wait, set HF_TOKEN, or use --jobs 1"
        if status:
            return f"{self._hub} answers {status}", there, "try again later: what was fetched is kept"
        reason = _without_user(str(error).split("\n")[0]) or type(error).__name__
        fix = "check the network, or name a mirror (--endpoint); what was fetched is kept"
        return f"{self._hub} cannot be reached, or broke off: {reason}", there, fix
