"""Words of the OCI runtime, and the choice of one that works."""

from pathlib import Path

import pytest

from lamina.containers.runtime import creation_error, exec_error
from lamina.errors import CommandNotExecutable, CommandNotFound, LaminaError, ProcessFailed, Unsupported
from lamina.programs.oci_runtime import OciRuntime, choose_runtime, failure_text

LOGGED = r'time="2026-11-23T21:25:33Z" level=error msg="runc create failed: exec: \"x\": executable file not found"'


def test_the_message_of_a_log_line_is_found() -> None:
    assert failure_text(LOGGED) == 'runc create failed: exec: "x": executable file not found'
    assert failure_text('{"level":"error","msg":"no luck","time":""}') == "no luck"
    assert failure_text("first\nplain text\n") == "plain text"
    assert failure_text("") == "no message"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('exec: "x": executable file not found in $PATH', CommandNotFound),
        ('exec: "/x": stat /x: no such file or directory', CommandNotFound),
        ('exec: "/etc": permission denied', CommandNotExecutable),
        ("mkdir /etc/passwd: not a directory", CommandNotFound),
        ("no space left on device", ProcessFailed),
    ],
)
def test_failures_are_classified_as_docker_does(said: str, error: type[LaminaError]) -> None:
    found = creation_error(said)
    assert type(found) is error
    assert found.message.startswith(
        "failed to create task for container: failed to create shim task: OCI runtime create"
    )
    assert type(exec_error(said)) is error


def test_words_of_an_operation_name_the_root(tmp_path: Path) -> None:
    runtime = OciRuntime(Path("/usr/sbin/runc"), tmp_path)
    assert runtime.words("start", "c") == ("/usr/sbin/runc", "--root", str(tmp_path), "start", "c")
    assert runtime.ids() == []


def test_without_any_runtime_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no-such-runtime: not installed") as caught:
        choose_runtime(tmp_path / "state", tmp_path, ("no-such-runtime",))
    assert caught.value.hint == "apt-get install runc"


def test_a_program_that_makes_no_containers_is_refused_with_its_reason(tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\necho cannot do this here >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(Unsupported, match="cannot do this here"):
        choose_runtime(tmp_path / "state", tmp_path, (str(fake),))
