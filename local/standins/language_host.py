"""Stand-in for `pulumi-language-python`, the language host that the Pulumi engine runs Python programs with.

It implements the part of `pulumirpc.LanguageRuntime` that `pulumi` needs for a project that exists:
run a program, say which plugins it needs, describe the interpreter and its packages, run a policy pack or a
provider of components. Each run starts a fresh interpreter (`program_runner.py`, `plugin_runner.py`), so that
no module of an earlier run is left. What it does not do (generate code) ends in an error that says so.
"""

# ruff: noqa: ARG002 (the service definition fixes the parameters of every method)

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from local.standins.plugin import WARNING, EngineLog, engine_address, serve
from local.standins.plugin_runner import NEEDS
from local.standins.program_runner import REASON_WAS_SHOWN

NOTICE = (
    "Running on a stand-in for pulumi-language-python, because the official language host is not on PATH. "
    "fix: install Pulumi as https://www.pulumi.com/docs/install/ says; it is then used by itself."
)
PYTHON_VARIABLE = "PULUMI_STANDIN_PYTHON"
RUNNER = Path(__file__).with_name("program_runner.py")
PLUGIN_RUNNER = Path(__file__).with_name("plugin_runner.py")
# Seconds for a program to end once it was asked to.
PROGRAM_STOP_GRACE = 3.0

# Run by the program's own interpreter: its packages, those that no other needs, and the plugins they name.
_LIST_PACKAGES = """
import importlib.metadata, json, re
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
found, needed, plugins = {}, set(), []
for package in importlib.metadata.distributions():
    name = package.metadata["Name"]
    if not name or plain(name) in found:
        continue
    found[plain(name)] = (name, package.version)
    for requirement in package.requires or ():
        if "extra ==" not in requirement:
            needed.add(plain(re.match(r"[A-Za-z0-9._-]+", requirement).group()))
    for file in package.files or ():
        if file.name == "pulumi-plugin.json" and len(file.parts) == 2:
            plugins.append({**json.loads(file.read_text()), "package": name, "release": package.version})
print(json.dumps({"packages": [[*entry, key not in needed] for key, entry in sorted(found.items())],
                  "plugins": plugins}))
"""


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The service. One instance serves one engine process."""

    def __init__(self, engine: str, log: EngineLog) -> None:
        """Engine: its address, "" where it comes with the handshake."""
        self._engine = engine
        self._log = log
        self._programs: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    # --- what the engine asks before a run

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        """Take the engine's address; an engine that attaches to a running host gives it only here."""
        if request.engine_address:
            self._engine = request.engine_address
            self._log.connect(request.engine_address)
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        """Say no version: the official host's versions are not ours to claim."""
        return plugin_pb2.PluginInfo()

    def GetRequiredPlugins(
        self, request: language_pb2.GetRequiredPluginsRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPluginsResponse:
        """The older form of GetRequiredPackages."""
        return language_pb2.GetRequiredPluginsResponse(
            plugins=[
                plugin_pb2.PluginDependency(
                    name=plugin["name"], kind="resource", version=plugin["version"], server=plugin["server"]
                )
                for plugin in self._required_plugins(request.info, context)
            ]
        )

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        """The resource plugins that the installed SDK packages name in their pulumi-plugin.json."""
        return language_pb2.GetRequiredPackagesResponse(
            packages=[
                plugin_pb2.PackageDependency(
                    name=plugin["name"], kind="resource", version=plugin["version"], server=plugin["server"]
                )
                for plugin in self._required_plugins(request.info, context)
            ]
        )

    def RuntimeOptionsPrompts(
        self, request: language_pb2.RuntimeOptionsRequest, context: grpc.ServicerContext
    ) -> language_pb2.RuntimeOptionsResponse:
        """Nothing to ask: the project file states its toolchain."""
        return language_pb2.RuntimeOptionsResponse()

    def Template(
        self, request: language_pb2.TemplateRequest, context: grpc.ServicerContext
    ) -> language_pb2.TemplateResponse:
        """Nothing to add to a project made from a template."""
        return language_pb2.TemplateResponse()

    def InstallDependencies(
        self, request: language_pb2.InstallDependenciesRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.InstallDependenciesResponse]:
        """Say where the packages come from, or fail where they are not there: `make` installs them."""
        python = self._python(request.info)
        probe = subprocess.run([python, "-c", "import pulumi"], capture_output=True, text=True, check=False)
        if probe.returncode:
            _fail(
                context,
                f"{python} has no Pulumi SDK. fix: run `make` in the project; the stand-in language host "
                "installs nothing by itself",
            )
        yield language_pb2.InstallDependenciesResponse(
            stdout=f"The packages of {python} were installed by `make`; nothing to install here.\n".encode()
        )

    def About(
        self, request: language_pb2.AboutRequest, context: grpc.ServicerContext
    ) -> language_pb2.AboutResponse:
        """Describe the interpreter that programs run with."""
        python = self._python(request.info)
        version = platform.python_version()
        if python != sys.executable:
            shown = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
            version = shown.stdout.strip().removeprefix("Python ")
        return language_pb2.AboutResponse(
            executable=python, version=version, metadata={"language host": "stand-in"}
        )

    def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        """The installed packages; without transitive ones, those that no other package needs."""
        packages = self._packages(request.info, context)["packages"]
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=name, version=version)
                for name, version, top in packages
                if top or request.transitiveDependencies
            ]
        )

    # --- the run

    def Run(
        self, request: language_pb2.RunRequest, context: grpc.ServicerContext
    ) -> language_pb2.RunResponse:
        """Run the program to its end in an interpreter of its own."""
        self._log.say_once(NOTICE, severity=WARNING)
        info = request.info
        folder = Path(info.program_directory or request.pwd)
        reading_end, writing_end = os.pipe()
        command = [self._python(info), "-u", str(RUNNER), "--host-pipe", str(reading_end)]
        for name, value in (
            ("project", request.project),
            ("stack", request.stack),
            ("organization", request.organization or "organization"),
            ("root-directory", info.root_directory),
            ("monitor", request.monitor_address),
            ("engine", self._engine),
            ("parallel", str(request.parallel)),
        ):
            command.append(f"--{name}={value}")
        if request.dryRun:
            command.append("--dry-run")
        command += ["--", str(folder / (info.entry_point or ".")), *request.args]
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        try:
            with self._lock:
                if self._stopping:
                    return language_pb2.RunResponse(bail=True)
                # Output goes to ours, which the engine shows to the user line by line.
                program = subprocess.Popen(
                    command,
                    cwd=request.pwd or folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[reading_end],
                )
                self._programs.add(program)
            os.close(reading_end)
            code = program.wait()
        except OSError as error:
            os.close(reading_end)
            return language_pb2.RunResponse(error=f"The program could not be started: {error}")
        finally:
            os.close(writing_end)
        with self._lock:
            self._programs.discard(program)
            stopped = self._stopping
        if code == REASON_WAS_SHOWN or stopped:
            return language_pb2.RunResponse(bail=True)
        if code < 0:
            return language_pb2.RunResponse(
                error=f"Program was killed by signal {signal.Signals(-code).name}"
            )
        if code:
            return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {code}")
        return language_pb2.RunResponse()

    def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """Run a policy pack or a provider until the engine ends the call."""
        if request.kind not in NEEDS:
            _refuse(context, f"run a plugin of the kind {request.kind!r} written in Python")
        self._log.say_once(NOTICE, severity=WARNING)
        folder = request.info.program_directory
        reading_end, writing_end = os.pipe()
        plugin = None
        try:
            with self._lock:
                if self._stopping:
                    return
                plugin = subprocess.Popen(
                    [
                        self._python(request.info),
                        "-u",
                        str(PLUGIN_RUNNER),
                        str(reading_end),
                        request.kind,
                        folder,
                        *request.args,
                    ],
                    cwd=request.pwd or folder,
                    env=dict(entry.split("=", 1) for entry in request.env if "=" in entry) or None,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[reading_end],
                )
                self._programs.add(plugin)
            if not context.add_callback(plugin.terminate):
                plugin.terminate()
            yield from _output(plugin)
        finally:
            os.close(reading_end)
            os.close(writing_end)
            # Here, since gRPC drops this generator at a yield where the call ends between two answers.
            if plugin is not None:
                _end([plugin])
                with self._lock:
                    self._programs.discard(plugin)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End the program that runs."""
        self.stop()
        return empty_pb2.Empty()

    def stop(self) -> None:
        """End what runs, first by asking; no program is started afterwards."""
        with self._lock:
            self._stopping = True
            programs = list(self._programs)
        _end(programs)

    # --- what this host does not do

    def GenerateProgram(
        self, request: language_pb2.GenerateProgramRequest, context: grpc.ServicerContext
    ) -> language_pb2.GenerateProgramResponse:
        """Refuse; `pulumi import` can do without."""
        _refuse(context, "generate Python code (with `pulumi import`, add --generate-code=false)")

    def GenerateProject(
        self, request: language_pb2.GenerateProjectRequest, context: grpc.ServicerContext
    ) -> language_pb2.GenerateProjectResponse:
        """Refuse."""
        _refuse(context, "generate a project")

    def GeneratePackage(
        self, request: language_pb2.GeneratePackageRequest, context: grpc.ServicerContext
    ) -> language_pb2.GeneratePackageResponse:
        """Refuse."""
        _refuse(context, "generate an SDK")

    # --- helpers

    def _python(self, info: language_pb2.ProgramInfo) -> str:
        """Return the interpreter for a program.

        First PULUMI_STANDIN_PYTHON, then the `virtualenv` that the project file names, else our own.
        """
        chosen = os.environ.get(PYTHON_VARIABLE)
        if chosen:
            return chosen
        fields = info.options.fields
        if "virtualenv" in fields and fields["virtualenv"].string_value:
            python = Path(info.root_directory, fields["virtualenv"].string_value, "bin", "python")
            if python.exists():
                return str(python)
            self._log.say_once(
                f"Pulumi.yaml: runtime.options.virtualenv: {python} does not exist; the program runs with "
                f"{sys.executable}. fix: run `make` in the project, or set {PYTHON_VARIABLE}"
            )
        return sys.executable

    def _packages(self, info: language_pb2.ProgramInfo, context: grpc.ServicerContext) -> dict[str, Any]:
        python = self._python(info)
        listing = subprocess.run([python, "-c", _LIST_PACKAGES], capture_output=True, text=True, check=False)
        if listing.returncode:
            _fail(context, f"{python} could not list its packages: {listing.stderr.strip()}")
        packages: dict[str, Any] = json.loads(listing.stdout)
        return packages

    def _required_plugins(
        self, info: language_pb2.ProgramInfo, context: grpc.ServicerContext
    ) -> list[dict[str, str]]:
        return [
            {
                "name": plugin.get("name") or plugin["package"].lower().removeprefix("pulumi-"),
                "version": plugin.get("version") or plugin["release"],
                "server": plugin.get("server") or "",
            }
            for plugin in self._packages(info, context)["plugins"]
            if plugin.get("resource")
        ]


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes, first by asking, and take their exit codes, so that none is left as a zombie."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(PROGRAM_STOP_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _output(process: subprocess.Popen[bytes]) -> Iterator[language_pb2.RunPluginResponse]:
    """Yield what a process writes as it comes, then its exit code."""
    lines: queue.Queue[language_pb2.RunPluginResponse | None] = queue.Queue()

    def read(stream: IO[bytes], is_error: bool) -> None:
        for line in stream:
            lines.put(
                language_pb2.RunPluginResponse(stderr=line)
                if is_error
                else language_pb2.RunPluginResponse(stdout=line)
            )
        lines.put(None)

    streams = (process.stdout, process.stderr)
    for stream in streams:
        threading.Thread(target=read, args=[stream, stream is process.stderr], daemon=True).start()
    for _ in streams:
        while (response := lines.get()) is not None:
            yield response
    yield language_pb2.RunPluginResponse(exitcode=process.wait())


def _refuse(context: grpc.ServicerContext, what: str) -> NoReturn:
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        f"the stand-in for pulumi-language-python does not {what}; the official language host does",
    )
    raise AssertionError("abort always raises")


def _fail(context: grpc.ServicerContext, message: str) -> NoReturn:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)
    raise AssertionError("abort always raises")


def main(arguments: Sequence[str]) -> int:
    """Serve one engine; arguments are those it starts a language host with."""
    address = engine_address(arguments)
    host = LanguageHost(address, EngineLog(address))
    return serve(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server), host.stop
    )
