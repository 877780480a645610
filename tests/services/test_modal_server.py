"""The Modal server of the tests, asked by Modal's own client."""

import importlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import modal
import pytest

from tests.services.modal.harness import TOKEN, CallStatus, Server, modal_server

pytestmark = pytest.mark.gcp

APP = '''
import os
import sys

import modal

image = (
    modal.Image.debian_slim(python_version="3.11")
    .uv_pip_install("numpy")
    .add_local_python_source("lent")
)
app = modal.App("{name}")
function = app.function(image=image, timeout=60)


@function
def echo(data: bytes) -> bytes:
    return data


@function
def version() -> tuple[int, str]:
    import lent

    return lent.VERSION, lent.__file__


@function
def surroundings() -> dict:
    return {{"variables": dict(os.environ), "cwd": os.getcwd(), "path": sys.path}}


@function
def import_of(name: str) -> str:
    return __import__(name).__file__


@function
def wait_for(fifo: str) -> str:
    """Blocks until somebody writes into the FIFO."""
    print("waiting", flush=True)
    print("not worried", file=sys.stderr)
    with open(fifo) as file:
        text = file.read()
    print("got " + text)
    return text


@function
def cling(fifo: str) -> None:
    """Goes on whatever is raised in it."""
    while True:
        try:
            open(fifo).read()
        except BaseException:
            continue


@function
def allocate(mib: int) -> int:
    return len(bytearray(b"x") * (mib << 20))


@function
def allocate_in_child(mib: int) -> int:
    import subprocess

    code = "import time; data = bytearray(b'x') * (%d << 20); time.sleep(60)" % mib
    return subprocess.run([sys.executable, "-c", code]).returncode


@function
def fail(how: str) -> None:
    if how == "raise":
        raise KeyError("no such shop")
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(3)
    os.kill(os.getpid(), 9)
'''


def write_app(directory: Path, name: str = "shop", version: int = 1, more: str = "") -> Path:
    """An app in a file, and a package of local source that it takes along."""
    package = directory / "lent"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(f"VERSION = {version}\n")
    path = directory / f"{name}_app.py"
    path.write_text(APP.format(name=name) + more)
    return path


def deploy(client: modal.Client, directory: Path, *args: object, **kwargs: object) -> None:
    """app.deploy() of write_app(), in this process."""
    module = write_app(directory, *args, **kwargs).stem
    importlib.invalidate_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        try:
            importlib.import_module(module).app.deploy(client=client)
        finally:
            sys.modules.pop(module, None)


def modal_cli(server: Server, cwd: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modal", *arguments],
        cwd=cwd,
        env={**os.environ, **server.variables, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ends(pid: int, timeout: float = 10.0) -> bool:
    """Whether the process is over within so many seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Server]:
    """A server with the app deployed to it."""
    app = write_app(project)
    with modal_server(tmp_path_factory.mktemp("modal"), environments=["staging"]) as server:
        modal_cli(server, project, "deploy", app.name)
        yield server
        assert set(server.log.splitlines()) <= {"unimplemented: SecretGetOrCreate"}


def client_of(server: Server, token: tuple[str, str] = TOKEN) -> Iterator[modal.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        with modal.Client.from_credentials(*token) as client:
            yield client


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[modal.Client]:
    yield from client_of(server)


@pytest.fixture
def function(client: modal.Client) -> Callable[..., modal.Function]:
    def look_up(name: str, app: str = "shop", **options: str) -> modal.Function:
        return modal.Function.from_name(app, name, client=client, **options)

    return look_up


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


# Deploy and look up


def test_modal_deploy_makes_the_functions_of_a_file_callable(function: Callable) -> None:
    assert function("echo").remote(b"abc") == b"abc"


def test_an_app_deploys_from_python(client: modal.Client, function: Callable, tmp_path: Path) -> None:
    deploy(client, tmp_path, "bakery")
    assert function("echo", "bakery").remote(b"bread") == b"bread"


def test_a_container_runs_what_was_deployed_whatever_is_on_disk_now(
    server: Server, client: modal.Client, function: Callable, tmp_path: Path
) -> None:
    deploy(client, tmp_path, "drift", version=1)
    old = function("version", "drift").hydrate()
    write_app(tmp_path, "drift", version=2)
    before, path = old.remote()
    deploy(client, tmp_path, "drift", version=2)
    after, _ = function("version", "drift").remote()

    assert (before, after) == (1, 2)
    assert path.startswith(str(server.state_dir))
    assert function("version", "drift").hydrate().object_id == old.object_id


@pytest.mark.parametrize(
    ("app", "name", "environment"),
    [("nothing", "echo", "main"), ("shop", "nothing", "main"), ("shop", "echo", "nowhere")],
)
def test_an_unknown_app_function_or_environment_is_not_found(
    function: Callable, app: str, name: str, environment: str
) -> None:
    with pytest.raises(modal.exception.NotFoundError, match=r"not found"):
        function(name, app, environment_name=environment).hydrate()


def test_environments_are_name_spaces_of_their_own(
    server: Server, function: Callable, tmp_path: Path
) -> None:
    with pytest.raises(modal.exception.NotFoundError):
        function("version", environment_name="staging").hydrate()
    app = write_app(tmp_path, version=7)
    modal_cli(server, tmp_path, "deploy", app.name, MODAL_ENVIRONMENT="staging")

    staged = function("version", environment_name="staging").hydrate()
    assert staged.object_id != function("version").hydrate().object_id
    assert staged.remote()[0] == 7


def test_another_token_is_an_authentication_error(server: Server) -> None:
    for client in client_of(server, (TOKEN[0], "wrong")):
        with pytest.raises(modal.exception.AuthError):
            modal.Function.from_name("shop", "echo", client=client).hydrate()


# What a container is given


def test_a_call_has_the_resources_of_its_options(server: Server, function: Callable) -> None:
    sized = function("surroundings").with_options(cpu=(0.25, 0.5), memory=(256, 512), timeout=40, retries=0)
    call = sized.spawn()
    call.get(timeout=30)
    report = server.call(call.object_id)
    assert (report.cpu, report.memory, report.timeout) == ((0.25, 0.5), (256, 512), 40)
    assert (report.app, report.status, report.containers_started) == ("shop", CallStatus.SUCCESS, 1)
    assert call.get_dashboard_url().endswith(call.object_id)


def test_a_container_is_given_nothing_of_the_servers_environment(server: Server, function: Callable) -> None:
    seen = function("surroundings").remote()
    variables = seen["variables"]

    assert not {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "GOOGLE_APPLICATION_CREDENTIALS"} & set(variables)
    assert set(variables) - {"PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONUNBUFFERED", "LC_CTYPE"} == {
        name for name in variables if name.startswith("MODAL_")
    }
    assert seen["cwd"].startswith(str(server.state_dir))
    assert not any(path.rstrip("/") == str(Path(__file__).parents[2]) for path in seen["path"])


def test_a_container_cannot_import_from_the_working_tree_what_was_not_deployed(function: Callable) -> None:
    with pytest.raises(ModuleNotFoundError):
        function("import_of").remote("serverless_assets")


# How calls end


def test_a_container_over_its_memory_limit_is_killed(server: Server, function: Callable) -> None:
    call = function("allocate").with_options(memory=(128, 200)).spawn(400)
    with pytest.raises(modal.exception.RemoteError, match="out of memory"):
        call.get(timeout=30)
    report = server.call(call.object_id)
    assert report.status is CallStatus.OOM
    assert ends(report.container_pid)


def test_memory_of_child_processes_counts(server: Server, function: Callable) -> None:
    call = function("allocate_in_child").with_options(memory=(128, 200)).spawn(400)
    assert server.wait_finished(call.object_id).status is CallStatus.OOM


def test_an_out_of_memory_container_can_be_started_again_without_end(tmp_path: Path) -> None:
    with modal_server(tmp_path / "modal", reschedule_oom=True) as server:
        for client in client_of(server):
            deploy(client, tmp_path)
            allocate = modal.Function.from_name("shop", "allocate", client=client)
            call = allocate.with_options(memory=(128, 128)).spawn(400)
            server.wait_for(call.object_id, containers_started=3)
            with pytest.raises(TimeoutError):
                call.get(timeout=0)
            call.cancel(terminate_containers=True)
            with pytest.raises(modal.exception.RemoteError):
                call.get(timeout=10)
            assert server.call(call.object_id).status is CallStatus.CANCELLED


def test_a_call_over_its_time_is_killed(server: Server, function: Callable, fifo: Path) -> None:
    call = function("wait_for").with_options(timeout=1).spawn(str(fifo))
    with pytest.raises(modal.exception.FunctionTimeoutError):
        call.get(timeout=30)
    report = server.call(call.object_id)
    assert report.status is CallStatus.TIMEOUT
    assert ends(report.container_pid)


@pytest.mark.parametrize(
    ("how", "error", "status"),
    [
        ("sys.exit", SystemExit, CallStatus.FAILURE),
        ("os._exit", modal.exception.InternalFailure, CallStatus.CRASHED),
        ("SIGKILL", modal.exception.InternalFailure, CallStatus.CRASHED),
    ],
)
def test_a_failure_reaches_the_caller_as_what_it_was(
    server: Server, function: Callable, how: str, error: type[BaseException], status: CallStatus
) -> None:
    call = function("fail").spawn(how)
    with pytest.raises(error):
        call.get(timeout=30)
    assert server.call(call.object_id).status is status


def test_a_cancelled_call_loses_its_container(server: Server, function: Callable, fifo: Path) -> None:
    call = function("wait_for").spawn(str(fifo))
    pid = server.wait_for(call.object_id, CallStatus.RUNNING).container_pid
    call.cancel(terminate_containers=True)
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=10)
    assert server.call(call.object_id).status is CallStatus.CANCELLED
    assert ends(pid)


# Payloads and logs


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_payloads_of_any_size_go_in_and_out(function: Callable, size: int) -> None:
    data = os.urandom(size)
    assert function("echo").remote(data) == data


def test_logs_arrive_while_the_function_runs_and_end_with_it(
    function: Callable, client: modal.Client, fifo: Path
) -> None:
    call = function("wait_for").spawn(str(fifo))
    lines = []
    # Another process may follow the call, so by its id.
    for entry in modal.FunctionCall.from_id(call.object_id, client=client).logs.stream():
        lines.append((entry.source, entry.message))
        if entry.message == "waiting\n":
            fifo.write_text("the word")
    assert lines[-1] == ("stdout", "got the word\n")
    assert ("stderr", "not worried\n") in lines
    assert len(lines) == 3


def test_an_exception_is_raised_as_itself_and_its_traceback_is_in_the_logs_by_then(
    server: Server, function: Callable
) -> None:
    call = function("fail").spawn("raise")
    with pytest.raises(KeyError, match="no such shop"):
        call.get(timeout=30)
    assert "KeyError: 'no such shop'" in "".join(entry.message for entry in call.logs.stream())
    assert server.call(call.object_id).status is CallStatus.FAILURE


# What survives what

CLIENT = """
import modal, sys
call = modal.Function.from_name("shop", "wait_for").spawn(sys.argv[1])
print(call.object_id, flush=True)
call.get()
"""


def test_a_call_goes_on_when_its_client_is_killed(server: Server, client: modal.Client, fifo: Path) -> None:
    command = [sys.executable, "-c", CLIENT, str(fifo)]
    with subprocess.Popen(
        command, env={**os.environ, **server.variables}, stdout=subprocess.PIPE, text=True
    ) as caller:
        call_id = caller.stdout.readline().strip()
        server.wait_for(call_id, CallStatus.RUNNING)
        caller.kill()
    fifo.write_text("still there")
    call = modal.FunctionCall.from_id(call_id, client=client)
    assert call.get(timeout=30) == "still there"
    assert modal.FunctionCall.from_id(call_id, client=client).get(timeout=0) == "still there"


def test_waiting_for_a_result_can_be_given_up(server: Server, function: Callable, fifo: Path) -> None:
    call = function("wait_for").spawn(str(fifo))
    with pytest.raises(TimeoutError):
        call.get(timeout=0.1)
    call.cancel(terminate_containers=True)
    assert server.wait_finished(call.object_id).status is CallStatus.CANCELLED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containers_end_with_the_server(tmp_path: Path, fifo: Path, number: signal.Signals) -> None:
    with modal_server(tmp_path / "modal") as server:
        for client in client_of(server):
            deploy(client, tmp_path)
            call = modal.Function.from_name("shop", "cling", client=client).spawn(str(fifo))
            pid = server.wait_for(call.object_id, CallStatus.RUNNING).container_pid
            os.kill(server.pid, number)
            assert ends(pid)
            assert ends(server.pid)


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.services.modal.harness import modal_server\n"
        "with modal_server(Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert ends(int(done.stdout))


def test_an_rpc_that_the_server_lacks_is_named(server: Server, client: modal.Client) -> None:
    with pytest.raises(modal.exception.UnimplementedError, match="SecretGetOrCreate"):
        modal.Secret.from_name("nothing", client=client).hydrate()
    assert "SecretGetOrCreate" in server.log
