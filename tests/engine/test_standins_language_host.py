"""The language host over gRPC, as the engine calls it; programs run against a resource monitor in here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from local.standins.language_host import NOTICE
from local.standins.plugin import engine_address

PROJECT = Path(__file__).resolve().parents[2]
LAUNCHER = PROJECT / "local" / "standins" / "bin" / "pulumi-language-python"


class Engine(engine_pb2_grpc.EngineServicer, resource_pb2_grpc.ResourceMonitorServicer):
    """What a program without resources needs of an engine."""

    def __init__(self) -> None:
        self.messages: list[engine_pb2.LogRequest] = []
        self.outputs: dict[str, str] = {}

    def errors(self) -> list[str]:
        severity = engine_pb2.LogSeverity.ERROR
        return [message.message for message in self.messages if message.severity == severity]

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.messages.append(request)
        return empty_pb2.Empty()

    def SetRootResource(
        self, request: engine_pb2.SetRootResourceRequest, context: grpc.ServicerContext
    ) -> engine_pb2.SetRootResourceResponse:
        return engine_pb2.SetRootResourceResponse()

    def SupportsFeature(
        self, request: resource_pb2.SupportsFeatureRequest, context: grpc.ServicerContext
    ) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=False)

    def RegisterResource(
        self, request: resource_pb2.RegisterResourceRequest, context: grpc.ServicerContext
    ) -> resource_pb2.RegisterResourceResponse:
        return resource_pb2.RegisterResourceResponse(
            urn=f"urn:pulumi:dev::demo::{request.type}::{request.name}"
        )

    def RegisterResourceOutputs(
        self, request: resource_pb2.RegisterResourceOutputsRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        self.outputs = {key: value.string_value for key, value in request.outputs.fields.items()}
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        return empty_pb2.Empty()


class Host:
    """A language host process with a client."""

    def __init__(self, process: subprocess.Popen[str], engine: Engine, address: str, folder: Path) -> None:
        self.process, self.engine, self.address, self.folder = process, engine, address, folder
        assert process.stdout
        port = int(process.stdout.readline())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = language_pb2_grpc.LanguageRuntimeStub(self.channel)

    @property
    def info(self) -> language_pb2.ProgramInfo:
        folder = str(self.folder)
        return language_pb2.ProgramInfo(root_directory=folder, program_directory=folder, entry_point=".")

    def run(self, program: str, **more: object) -> language_pb2.RunResponse:
        (self.folder / "__main__.py").write_text(program)
        request = language_pb2.RunRequest(
            project="demo",
            stack="dev",
            pwd=str(self.folder),
            monitor_address=self.address,
            parallel=2,
            info=self.info,
        )
        for key, value in more.items():
            if isinstance(value, dict):
                getattr(request, key).update(value)
            elif isinstance(value, list):
                getattr(request, key).extend(value)
            else:
                setattr(request, key, value)
        response: language_pb2.RunResponse = self.stub.Run(request, timeout=60)
        return response


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    engine = Engine()
    server = grpc.server(ThreadPoolExecutor(8))
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(engine, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with subprocess.Popen(
        [LAUNCHER, address],
        env={**os.environ, "PULUMI_STANDIN_PYTHON": sys.executable},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield Host(process, engine, address, tmp_path)
        process.kill()
    server.stop(None)


def test_a_program_gets_its_configuration_and_its_outputs_arrive(host: Host) -> None:
    response = host.run(
        "import os, pulumi\n"
        "config = pulumi.Config()\n"
        "pulumi.export('greeting', config.require('greeting'))\n"
        "pulumi.export('secret', str(pulumi.runtime.config.is_config_secret('demo:greeting')))\n"
        "pulumi.export('stack', f'{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}')\n"
        "pulumi.export('preview', str(pulumi.runtime.is_dry_run()))\n"
        "pulumi.export('folder', os.getcwd())\n",
        config={"demo:greeting": "hello"},
        configSecretKeys=["demo:greeting"],
        dryRun=True,
    )
    assert (response.error, response.bail) == ("", False)
    assert host.engine.outputs == {
        "greeting": "hello",
        "secret": "True",
        "stack": "organization/demo/dev",
        "preview": "True",
        "folder": str(host.folder),
    }


def test_it_says_once_that_it_is_a_stand_in(host: Host) -> None:
    host.run("")
    host.run("")
    warnings = [m.message for m in host.engine.messages if m.severity == engine_pb2.LogSeverity.WARNING]
    assert warnings == [NOTICE]


def test_each_run_sees_the_modules_as_they_are_now(host: Host) -> None:
    program = "import pulumi, part\npulumi.export('value', part.VALUE)\n"
    for value in ("first", "second"):
        (host.folder / "part.py").write_text(f"VALUE = {value!r}\n")
        host.run(program)
        assert host.engine.outputs == {"value": value}


def test_a_programs_output_reaches_the_engine(host: Host) -> None:
    host.run("print('hello from the program')\n")
    assert host.process.stdout
    assert host.process.stdout.readline() == "hello from the program\n"


def test_a_run_error_prints_its_message_only(host: Host) -> None:
    response = host.run("import pulumi\nraise pulumi.RunError('weights: /x: no such folder')\n")
    assert host.engine.errors() == ["weights: /x: no such folder"]
    # As the official host answers: its executor ends with 1 after a RunError.
    assert response.error == "Program exited with non-zero exit code: 1"


def test_another_exception_prints_the_programs_part_of_the_traceback_once(host: Host) -> None:
    response = host.run("def fail():\n    raise ValueError('broken')\nfail()\n")
    assert (response.error, response.bail) == ("", True)
    (error,) = host.engine.errors()
    assert error.startswith("Program failed with an unhandled exception:\nTraceback")
    assert "ValueError: broken" in error
    assert error.count("File ") == 2
    assert "program_runner" not in error


def test_a_folder_without_a_program_is_said(host: Host) -> None:
    (host.folder / "empty").mkdir()
    info = language_pb2.ProgramInfo(
        root_directory=str(host.folder), program_directory=str(host.folder / "empty")
    )
    request = language_pb2.RunRequest(pwd=str(host.folder), monitor_address=host.address, info=info)
    assert host.stub.Run(request).bail
    assert "unable to find main python program" in host.engine.errors()[0]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit(3)", "Program exited with non-zero exit code: 3"),
        ("import os; os.kill(os.getpid(), 9)", "Program was killed by signal SIGKILL"),
    ],
)
def test_other_ends_of_a_program_are_told(host: Host, program: str, told: str) -> None:
    assert host.run(program).error == told


def test_the_plugins_of_the_installed_packages_are_required(host: Host) -> None:
    response = host.stub.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest(info=host.info))
    assert {(package.name, package.kind, package.version) for package in response.packages} >= {
        ("kubernetes", "resource", "4.34.2"),
        ("docker-build", "resource", "0.0.22"),
    }


def test_about_and_dependencies_describe_the_environment(host: Host) -> None:
    about = host.stub.About(language_pb2.AboutRequest(info=host.info))
    assert about.executable == sys.executable
    assert about.version == "{}.{}.{}".format(*sys.version_info[:3])

    def names(transitive: bool) -> set[str]:
        request = language_pb2.GetProgramDependenciesRequest(
            info=host.info, transitiveDependencies=transitive
        )
        return {entry.name.lower() for entry in host.stub.GetProgramDependencies(request).dependencies}

    assert {"pulumi", "grpcio"} <= names(True)
    assert "grpcio" not in names(False)


def test_installing_says_that_make_did_it(host: Host) -> None:
    request = language_pb2.InstallDependenciesRequest(info=host.info)
    output = b"".join(part.stdout for part in host.stub.InstallDependencies(request))
    assert b"`make`" in output


def test_a_missing_virtual_environment_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from local.standins.language_host import PYTHON_VARIABLE, LanguageHost
    from local.standins.plugin import EngineLog

    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    info = host.info
    info.options.update({"virtualenv": "absent"})
    assert LanguageHost("", EngineLog(host.address))._python(info) == sys.executable
    assert "absent/bin/python does not exist" in host.engine.messages[0].message


@pytest.mark.parametrize("how", ["signal", "engine gone"])
def test_it_ends_quietly_with_the_program_it_runs(host: Host, how: str) -> None:
    # It says its pid through a pipe: the SDK registers nothing while the program itself is busy.
    os.mkfifo(host.folder / "pid")
    program = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nwhile True: time.sleep(1)\n"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.run, program)
        pid = (host.folder / "pid").read_text()
        if how == "signal":
            host.process.send_signal(signal.SIGINT)
        else:
            assert host.process.stdin
            host.process.stdin.close()
        assert host.process.wait(20) == 0
        running.exception(20)
    assert host.process.stderr
    assert host.process.stderr.read() == ""
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["127.0.0.1:1"], "127.0.0.1:1"),
        (["--logtostderr", "-v=9", "127.0.0.1:1"], "127.0.0.1:1"),
        (["--tracing", "http://there", "127.0.0.1:1"], "127.0.0.1:1"),
        (["--tracing", "http://there"], ""),
        (["-v=9"], ""),
        ([], ""),
    ],
)
def test_the_engines_address_comes_last(arguments: list[str], address: str) -> None:
    assert engine_address(arguments) == address
