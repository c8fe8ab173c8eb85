"""A day with docker-py, a client that reads the answers its own way."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Mount

from tests.e2e import images
from tests.e2e.engines import Engine


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(base_url=engine.host, timeout=30)
    yield found
    found.close()


def tar_of(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    return out.getvalue()


def test_the_engine_answers(client: docker.DockerClient, engine: Engine) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"]
    assert client.info()["DockerRootDir"] == str(engine.data_root)
    assert {"Images", "Containers", "Volumes"} <= client.df().keys()


def test_run_gives_the_output_and_raises_on_failure(client: docker.DockerClient) -> None:
    both = {"stdout": True, "stderr": True, "remove": True, "network_mode": "none"}
    said = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], **both)
    assert sorted(said.splitlines()) == [b"err", b"out"]
    with pytest.raises(ContainerError) as failure:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert (failure.value.exit_status, failure.value.stderr) == (3, b"why\n")
    with pytest.raises(ImageNotFound):
        client.containers.create("nosuchimage")
    assert client.containers.list(all=True) == []


def test_output_that_comes_at_once_is_not_lost(client: docker.DockerClient) -> None:
    """docker-py loses what arrives together with the head of the answer."""
    box = client.containers.run("busybox", ["sh", "-c", "echo early; exec sleep 300"], detach=True)
    for _ in range(20):
        assert box.exec_run(["echo", "at once"]).output == b"at once\n"
    next(box.logs(stream=True))
    for _ in range(20):
        attached = box.attach(logs=True, stream=True)
        assert next(attached) == b"early\n"


def test_exec_keeps_the_streams_apart(client: docker.DockerClient) -> None:
    box = client.containers.run("busybox", ["sleep", "300"], detach=True)
    both = ["sh", "-c", "echo out; echo err >&2; exit 4"]
    result = box.exec_run(both, demux=True)
    assert (result.exit_code, result.output) == (4, (b"out\n", b"err\n"))
    streamed = list(box.exec_run(both, stream=True, demux=True).output)
    assert {b"out\n", b"err\n"} == {piece for pair in streamed for piece in pair if piece}
    told = ["sh", "-c", 'echo "$PWD $COLOR $(id -u)"']
    assert box.exec_run(told, workdir="/tmp", environment={"COLOR": "blue"}, user="daemon").output == b"/tmp blue 1\n"
    terminal = client.api.exec_create(box.id, ["sh", "-c", "test -t 1 && echo tty"], tty=True)
    # Framed, although there is a terminal: start says that the client believes there is none.
    assert client.api.exec_start(terminal["Id"]) == b"tty\r\n"
    assert client.api.exec_inspect(terminal["Id"])["ExitCode"] == 0


def test_detach_keys_of_any_spelling_count(client: docker.DockerClient) -> None:
    client.api._general_configs["detachKeys"] = "ctrl-p"  # what docker-py reads from config.json
    box = client.containers.run("busybox", ["sleep", "300"], detach=True)
    started = client.api.exec_create(box.id, "cat", stdin=True, tty=True)
    stream = client.api.exec_start(started["Id"], tty=True, socket=True)
    stream._sock.settimeout(20)
    stream._sock.sendall(b"\x10")
    assert stream.read() == b""
    assert client.api.exec_inspect(started["Id"])["Running"] is True


def test_logs_are_read_back_and_followed(client: docker.DockerClient) -> None:
    box = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], detach=True)
    assert list(box.logs(stream=True, follow=True)) == [b"1\n", b"2\n", b"3\n"]
    assert box.wait()["StatusCode"] == 0
    assert box.logs(tail=1) == b"3\n"
    assert box.logs(stdout=False, stderr=True) == b""
    assert b"Z 1\n" in box.logs(timestamps=True)


def test_a_socket_carries_both_ways(client: docker.DockerClient) -> None:
    box = client.containers.create("busybox", ["cat"], stdin_open=True)
    stream = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    stream._sock.sendall(b"hello\n")
    header = stream.read(8)
    assert (header[0], stream.read(int.from_bytes(header[4:]))) == (1, b"hello\n")
    stream.close()
    box.kill()
    assert box.wait()["StatusCode"] == 137


def test_files_go_in_and_come_out(client: docker.DockerClient) -> None:
    box = client.containers.create("busybox", ["cat", "/tmp/note"])
    assert box.put_archive("/tmp", tar_of("note", b"written here\n")) is True
    pieces, stat = box.get_archive("/tmp/note")
    assert (stat["name"], stat["size"]) == ("note", 13)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        found = tar.extractfile("note")
        assert found is not None
        assert found.read() == b"written here\n"
    assert {"Path": "/tmp/note", "Kind": 1} in box.diff()
    with pytest.raises(NotFound):
        box.get_archive("/no/such")
    box.start()
    box.wait()
    assert box.logs() == b"written here\n"


def test_a_life_and_what_is_told_of_it(client: docker.DockerClient) -> None:
    watch = client.events(decode=True, filters={"type": "container"})
    told: list[str] = []
    ended = threading.Event()

    def listen() -> None:
        for event in watch:
            told.append(event["Action"])
            if event["Action"] == "destroy":
                ended.set()
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    box = client.containers.create("busybox", ["sleep", "300"], name="life", labels={"kind": "test"}, init=False)
    assert (box.status, box.labels, box.name) == ("created", {"kind": "test"}, "life")
    box.start()
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("second")
    assert [one.name for one in client.containers.list(filters={"label": "kind=test"})] == ["second"]
    assert box.top()["Titles"]
    figures = box.stats(stream=False)
    assert figures["memory_stats"]["usage"] > 0
    assert figures["cpu_stats"]["system_cpu_usage"] > figures["precpu_stats"]["system_cpu_usage"] > 0
    assert figures["networks"]["eth0"]["tx_bytes"] >= 0
    assert box.update(mem_limit="64m", memswap_limit="128m") == {"Warnings": []}
    assert box.stats(stream=False, one_shot=True)["memory_stats"]["limit"] == 64 << 20
    assert box.attrs["HostConfig"]["Memory"] == 0
    box.reload()
    assert box.attrs["HostConfig"]["Memory"] == 64 << 20
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] in {137, 143}
    box.remove()
    assert ended.wait(20)
    listener.join(20)
    assert [action for action in told if action in {"create", "start", "pause", "unpause", "rename", "die", "destroy"}] == [
        "create", "start", "pause", "unpause", "rename", "die", "destroy"
    ]  # fmt: skip
    with pytest.raises(NotFound):
        client.containers.get("second")


def test_images_are_named_saved_loaded_made_and_pruned(client: docker.DockerClient) -> None:
    busybox = client.images.get("busybox")
    assert busybox.tag("other/name", "v1") is True
    assert set(client.images.get(busybox.id).tags) == {"busybox:latest", "other/name:v1"}
    saved = b"".join(client.images.get("other/name:v1").save(named="other/name:v1"))
    client.images.remove("other/name:v1")
    assert [image.tags for image in client.images.load(saved)] == [["busybox:latest", "other/name:v1"]]
    with pytest.raises(docker.errors.ImageLoadError):
        client.images.load(b"abc")
    box = client.containers.run("busybox", ["touch", "/new"], detach=True)
    box.wait()
    made = box.commit("made", "1", message="why")
    assert next(entry["Comment"] for entry in made.history()) == "why"
    assert client.containers.run("made:1", ["ls", "/new"], remove=True) == b"/new\n"
    assert made.id not in {row.get("Deleted") for row in client.images.prune()["ImagesDeleted"] or []}
    found = client.images.prune({"dangling": False})
    assert {"Untagged": "made:1"} in found["ImagesDeleted"]
    assert {"Deleted": made.id} in found["ImagesDeleted"]
    assert client.images.get("busybox").id == busybox.id, "a container was made from it"
    with pytest.raises(ImageNotFound):
        client.images.get("made:1")
    client.images.remove("other/name:v1")


def test_volumes_hold_data_and_go_when_nobody_needs_them(client: docker.DockerClient) -> None:
    data = client.volumes.create("data", labels={"kind": "test"})
    mounted = [Mount("/data", "data")]
    client.containers.run("busybox", ["sh", "-c", "echo kept > /data/file"], mounts=mounted, remove=True)
    said = client.containers.run("busybox", ["cat", "/data/file"], volumes={"data": {"bind": "/data", "mode": "ro"}})
    assert said == b"kept\n"
    assert [volume.name for volume in client.volumes.list(filters={"label": "kind"})] == ["data"]
    with pytest.raises(APIError) as refused:
        data.remove()
    assert refused.value.status_code == 409
    assert len(client.containers.prune()["ContainersDeleted"]) == 1
    assert client.volumes.prune()["VolumesDeleted"] is None
    assert client.volumes.prune({"all": True}) == {"VolumesDeleted": ["data"], "SpaceReclaimed": 5}
    with pytest.raises(NotFound):
        client.volumes.get("data")


def test_errors_are_the_kind_that_people_catch(client: docker.DockerClient) -> None:
    client.containers.create("busybox", name="taken")
    with pytest.raises(APIError) as refused:
        client.containers.create("busybox", name="taken")
    assert refused.value.status_code == 409
    assert 'The container name "/taken" is already in use' in refused.value.explanation
    with pytest.raises(APIError) as refused:
        client.containers.create("busybox", log_config={"Type": "asdf"})
    assert refused.value.explanation == "logger: no log driver named 'asdf' is registered"
    with pytest.raises(NotFound):
        client.containers.get("nobody")
    missing = client.containers.create("busybox", ["nosuchcommand"])
    with pytest.raises(APIError, match="executable file not found"):
        missing.start()


def test_an_archive_in_the_old_form_is_loaded(client: docker.DockerClient) -> None:
    assert [image.tags for image in client.images.load(images.with_volume())] == [["with-volume:1"]]
    said = client.containers.run("with-volume:1", remove=True)
    assert said == b"from the image\n"
    client.images.remove("with-volume:1")
