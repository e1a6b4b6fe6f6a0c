"""Stands before the platform's registry and spoils answers, as a file of rules says at that moment.

`python front.py RULES LISTEN REGISTRY` is run by the platform's supervisor; the file RULES is read
on every request. Without it everything is passed on.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

BLOCK = 64 * 1024
#: Headers that belong to one connection (RFC 9110, section 7.6.1), or that aiohttp writes itself.
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-encoding"}

SESSION = web.AppKey("session", ClientSession)


@dataclass(frozen=True)
class Rule:
    """What happens to requests of these methods (all where empty) whose path matches.

    status: answer this, and do not ask the registry. rate: bytes a second, in both directions. cut: end the
    connection after so many bytes of a body. times: only so often; None: always.
    """

    path: str = ""
    methods: tuple[str, ...] = ()
    status: int | None = None
    rate: int | None = None
    cut: int | None = None
    times: int | None = None


class Rules:
    """The rules as the file has them now, and how often one was used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, *rules: Rule) -> None:
        """Let these hold from the next request on."""
        self.used_file.unlink(missing_ok=True)
        staging = self.path.with_suffix(".part")
        staging.write_text(json.dumps([asdict(rule) for rule in rules]))
        staging.rename(self.path)

    @property
    def used_file(self) -> Path:
        """A byte for each request that a rule was used on."""
        return self.path.with_suffix(".used")

    def used(self) -> int:
        """Return on how many requests a rule was used since they were set."""
        return self.used_file.stat().st_size if self.used_file.exists() else 0

    def find(self, method: str, path: str) -> Rule | None:
        """Return the rule for a request, and count it."""
        if not self.path.exists():
            return None
        for row in json.loads(self.path.read_text()):
            rule = Rule(**row)
            fits = (not rule.methods or method in rule.methods) and re.search(rule.path, path)
            if fits and (rule.times is None or self.used() < rule.times):
                with self.used_file.open("ab") as file:
                    file.write(b".")
                return rule
        return None


async def _spoiled(body: AsyncIterator[bytes], rule: Rule | None) -> AsyncIterator[bytes]:
    sent = 0
    async for block in body:
        kept = block
        if rule and rule.cut is not None:
            kept = block[: max(0, rule.cut - sent)]
        sent += len(kept)
        if kept:
            yield kept
        if len(kept) < len(block):
            raise ConnectionResetError("cut by a rule")
        if rule and rule.rate:
            await asyncio.sleep(len(block) / rule.rate)


def application(target: str, rules: Rules) -> web.Application:
    """Return the front of the registry at `target` (HOST:PORT)."""

    async def handle(request: web.Request) -> web.StreamResponse:
        rule = rules.find(request.method, request.path)
        if rule and rule.status:
            headers = {"Retry-After": "1"} if rule.status in {429, 503} else {}
            if rule.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="campaign"'
            error = {"errors": [{"code": "CAMPAIGN", "message": f"made up: {rule.status}"}]}
            return web.json_response(error, status=rule.status, headers=headers)
        session = request.app[SESSION]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = _spoiled(request.content.iter_chunked(BLOCK), rule) if request.can_read_body else None
        url = f"http://{target}{request.raw_path}"
        cut = False
        try:
            async with session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                kept = {n: v for n, v in answer.headers.items() if n.lower() not in HOP_BY_HOP}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                try:
                    async for block in _spoiled(answer.content.iter_chunked(BLOCK), rule):
                        await response.write(block)
                except ConnectionResetError:
                    cut = True
                if not cut:
                    await response.write_eof()
                    return response
        except (OSError, ConnectionResetError):
            cut = True
        if request.transport:
            request.transport.abort()
        return web.Response(status=502)

    async def sessions(app: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0)
        timeout = ClientTimeout(total=None)
        async with ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            app[SESSION] = session
            yield

    app = web.Application(client_max_size=0)
    app.cleanup_ctx.append(sessions)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def main() -> None:
    """Serve until the supervisor says stop."""
    path, listen, target = sys.argv[1:]
    host, _, port = listen.partition(":")
    web.run_app(
        application(target, Rules(Path(path))), host=host, port=int(port), print=None, access_log=None
    )


if __name__ == "__main__":
    main()
