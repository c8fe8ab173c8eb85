"""What the daemon may be asked, and how it refuses the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.daemon.config import DaemonConfig, from_sources, parse_storage_opts
from lamina.errors import InvalidArgument


def _file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _read(tmp_path: Path, content: object, **flags: object) -> DaemonConfig:
    return from_sources(flags, _file(tmp_path, content), environment={})


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    config = from_sources({}, None, default_file=tmp_path / "none", environment={})
    assert config.data_root == Path("/var/lib/lamina")
    assert config.hosts == ("unix:///run/lamina.sock",)
    assert "127.0.0.0/8" in config.insecure_registries


def test_dockerds_keys_take_effect(tmp_path: Path) -> None:
    config = _read(
        tmp_path,
        {
            "data-root": "/d",
            "storage-driver": "vfs",
            "storage-opts": ["a.b=c"],
            "registry-mirrors": ["http://m"],
            "hosts": ["unix:///s"],
            "debug": True,
        },
    )
    assert (config.data_root, config.storage_driver, config.storage_opts) == (Path("/d"), "vfs", {"a.b": "c"})
    assert (config.registry_mirrors, config.hosts, config.debug) == (("http://m",), ("unix:///s",), True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data-rot": "/d"}, "data-rot"),
        ({"userns-remap": "default"}, "userns-remap"),
        ({"storage-driver": 3}, "storage-driver has the wrong type"),
        ({"hosts": "unix:///s"}, "hosts has the wrong type"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ({"bip": "172.17.0.1"}, "leaves no room"),
        ({"bip": "nonsense"}, "--bip"),
        ({"bip": "10.0.0.1/24", "bridge": "br0"}, "exclude each other"),
        ({"log-level": "loud"}, "loud"),
        ({"max-concurrent-downloads": 0}, "max-concurrent-downloads"),
        ({"storage-opts": ["nothing"]}, "key=value"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        _read(tmp_path, content)


def test_an_option_given_twice_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="data-root"):
        _read(tmp_path, {"data-root": "/a"}, data_root=Path("/b"))


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist"):
        from_sources({}, tmp_path / "none", environment={})


def test_keys_without_effect_are_told(tmp_path: Path) -> None:
    assert "live-restore" in _read(tmp_path, {"live-restore": True}).warnings[0]


@pytest.mark.parametrize(
    "host", ["tcp://0.0.0.0:2375", "tcp://192.0.2.1:2375", "tcp://127.0.0.1:2375", "tcp://localhost:2375"]
)
def test_tcp_without_tls_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidArgument, match="TLS"):
        _read(tmp_path, {}, hosts=(host,))


def test_tcp_is_allowed_on_loopback_when_said_and_anywhere_with_mutual_tls(tmp_path: Path) -> None:
    assert _read(tmp_path, {}, hosts=("tcp://127.0.0.1:2375",), allow_plain_tcp=True).hosts
    assert _read(tmp_path, {}, hosts=("tcp://0.0.0.0:2376",), tlsverify=True).hosts
    with pytest.raises(InvalidArgument):
        _read(tmp_path, {}, hosts=("tcp://0.0.0.0:2375",), allow_plain_tcp=True)


@pytest.mark.parametrize("host", ["http://x", "unix://relative", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "nothing"])
def test_other_hosts_are_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidArgument):
        _read(tmp_path, {}, hosts=(host,), allow_plain_tcp=True)


def test_what_systemd_passes_is_read(tmp_path: Path) -> None:
    environment = {"LISTEN_PID": "12", "LISTEN_FDS": "2", "NOTIFY_SOCKET": "@n"}
    config = from_sources({}, None, default_file=tmp_path / "none", environment=environment)
    assert (config.listen_pid, config.listen_fds, config.notify_socket) == (12, 2, "@n")


def test_storage_options_are_lower_case_keys() -> None:
    assert parse_storage_opts(["Overlay2.Size= 1G"]) == {"overlay2.size": "1G"}


def test_roots_mean_the_same_in_every_working_directory(tmp_path: Path) -> None:
    flags = {"data_root": Path("data"), "exec_root": Path("run"), "pidfile": Path("pid")}
    config = from_sources(flags, None, default_file=tmp_path / "none", environment={})
    assert [config.data_root, config.exec_root, config.pidfile] == [
        Path.cwd() / name for name in ("data", "run", "pid")
    ]
