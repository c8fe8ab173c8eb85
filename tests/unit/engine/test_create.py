"""Create, inspect, list and rename over the real stores."""

import asyncio
import io
import json
import re
import tarfile

import pytest

from lamina.clock import SystemClock
from lamina.containers.config import Defaults
from lamina.containers.store import ContainerStore
from lamina.containers.validate import Limits
from lamina.engine.container_view import ContainerViews
from lamina.engine.create import Create
from lamina.engine.inspect import InspectContainer
from lamina.engine.list_containers import ListContainers
from lamina.engine.rename import Rename
from lamina.errors import (
    Conflict,
    InvalidArgument,
    LaminaError,
    NameInUse,
    NoSuchContainer,
    NoSuchImage,
    NotServed,
)
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.store import LayerStore
from lamina.oci.platform import Platform
from lamina.oci.reference import parse_reference
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers
from tests.e2e.images import busybox

pytestmark = pytest.mark.root


class Modes:
    """The networks of a host without any."""

    default_mode = "bridge"

    def resolve_mode(self, mode: str) -> str:
        if mode in {"bridge", "host", "none"} or mode.startswith("container:"):
            return mode
        raise NotServed(f"user-defined networks are not served yet: network {mode}")


class Recorder:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.events = []

    def publish(self, kind, action, actor_id, attributes):
        self.events.append((kind, action, actor_id, dict(attributes)))


DRIVERS = {"overlay2": Overlay2, "vfs": Vfs}


class Stores:
    """Layers, images and tags, with one image."""

    def __init__(self, root, driver, image) -> None:
        self.driver = DRIVERS[driver](root)
        home = root / "image" / driver
        self.layers = LayerStore(home / "layerdb", self.driver, Mounts(self.driver))
        self.images = ImageStore(home / "imagedb", self.layers)
        self.tags = TagStore(home / "repositories.json")
        self.lookup = ImageLookup(self.images, self.tags)
        assert [*self.layers.load(), *self.images.load(), *self.tags.load()] == []
        config, layer = image
        self.layers.register(io.BytesIO(layer), None)
        self.tags.set_tag(parse_reference("busybox:latest"), self.images.put(config))


@pytest.fixture(scope="module")
def image():
    """The config and the only layer of a busybox image."""
    with tarfile.open(fileobj=io.BytesIO(busybox())) as archive:
        (entry,) = json.load(archive.extractfile("manifest.json"))
        return archive.extractfile(entry["Config"]).read(), archive.extractfile(entry["Layers"][0]).read()


class Engine:
    """The verbs over one data root."""

    def __init__(self, root, driver: str, image) -> None:
        self.stores = Stores(root, driver, image)
        self.volumes = VolumeStore(root / "volumes")
        self.volumes.open()
        self.containers = ContainerStore(root / "containers", driver)
        self.workers = Workers(4)
        self.events = Recorder()
        stores = self.stores
        clock = SystemClock()
        views = ContainerViews(stores.images, stores.lookup, stores.layers, self.volumes, stores.driver)
        self._create = Create(
            containers=self.containers, images=stores.images, lookup=stores.lookup, layers=stores.layers,
            volumes=self.volumes, networks=Modes(), events=self.events, workers=self.workers, clock=clock,
            driver_name=driver, data_root=root, defaults=Defaults(), limits=Limits(cpus=2),
            host_platform=Platform("linux", "amd64"),
        )  # fmt: skip
        self._inspect = InspectContainer(self.containers, views, self.workers)
        self._list = ListContainers(self.containers, views, stores.images, stores.lookup, self.workers, clock)
        self._rename = Rename(self.containers, self.events, self.workers)

    def close(self):
        self.workers.close()
        self.volumes.close()
        self.stores.driver.close()

    def create(self, name=None, config=None, host=None, networking=None, platform=None):
        config = {"Image": "busybox"} | (config or {})
        return asyncio.run(self._create(name, config, host or {}, networking or {}, platform))

    def inspect(self, ref, *, size=False):
        return asyncio.run(self._inspect(ref, size))

    def list(self, *, all=True, **more):  # noqa: A002
        return asyncio.run(self._list(all=all, **more))

    def rename(self, ref, name):
        asyncio.run(self._rename(ref, name))

    def everything(self):
        """What is there besides the image: must be the same before and after a failure."""
        return (
            sorted(self.stores.layers.rw_names()),
            sorted(self.stores.driver.cache_ids()),
            [volume.name for volume in self.volumes.list()],
            [one.id for one in self.containers.all()],
            sorted(entry.name for entry in self.containers._directory.iterdir()),
            dict(self.containers._names),
        )


@pytest.fixture(params=["overlay2", "vfs"])
def engine(request, tmp_path, image):
    made = Engine(tmp_path, request.param, image)
    yield made
    made.close()


@pytest.fixture
def plain(tmp_path, image):
    made = Engine(tmp_path, "overlay2", image)
    yield made
    made.close()


def test_a_created_container_has_its_layer_its_record_and_its_event(engine):
    created = engine.create("web", {"Cmd": ["echo", "a b"], "Labels": {"x": "y"}})
    found = engine.inspect("web")
    assert found["Id"] == created.id
    assert (found["Path"], found["Args"]) == ("echo", ["a b"])
    assert found["State"]["Status"] == "created"
    assert found["Config"]["Hostname"] == created.id[:12]
    assert found["Config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert found["Image"] == engine.stores.lookup.find("busybox")
    assert found["GraphDriver"]["Name"] == engine.stores.driver.name
    assert engine.stores.layers.rw(created.id).init_id is not None
    assert engine.events.events == [
        ("container", "create", created.id, {"x": "y", "image": "busybox", "name": "web"}),
    ]
    root = engine.stores.layers.mount_rw(created.id)
    assert (root / ".dockerenv").exists()
    assert (root / "bin" / "busybox").exists()
    engine.stores.layers.unmount_rw(created.id)


def test_it_is_there_again_for_the_next_daemon(engine):
    created = engine.create("web")
    again = ContainerStore(engine.containers._directory, engine.stores.driver.name)
    assert again.load(engine.stores.layers.rw_names()) == []
    assert again.resolve("web").id == created.id


def test_defaults_are_dockers(plain):
    plain.create("web")
    host = plain.inspect("web")["HostConfig"]
    assert host["NetworkMode"] == "bridge"
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert (host["ShmSize"], host["IpcMode"], host["Runtime"]) == (64 << 20, "private", "runc")
    assert "/proc/kcore" in host["MaskedPaths"]


def test_a_made_up_name_is_given_when_none_is_asked_for(plain):
    plain.create()
    (found,) = plain.list()
    assert re.fullmatch(r"/[a-z]+_[a-z]+", found["Names"][0])


def test_limits_are_completed(plain):
    plain.create("web", host={"Memory": 64 << 20, "CapAdd": ["net_admin"]})
    host = plain.inspect("web")["HostConfig"]
    assert host["MemorySwap"] == 128 << 20
    assert host["CapAdd"] == ["CAP_NET_ADMIN"]


def test_volumes_of_every_kind_are_made_filled_and_held(engine, tmp_path):
    created = engine.create(
        "web",
        {"Volumes": {"/etc": {}, "/new": {}}},
        {"Binds": ["named:/bin:ro", f"{tmp_path}:/host"], "Mounts": [{"Type": "tmpfs", "Target": "/t"}]},
    )
    mounts = {mount["Destination"]: mount for mount in engine.inspect("web")["Mounts"]}
    assert set(mounts) == {"/etc", "/new", "/bin", "/host", "/t"}
    assert mounts["/bin"]["Name"] == "named"
    assert not mounts["/bin"]["RW"]
    assert (engine.volumes.get("named").mountpoint / "busybox").exists()
    assert (engine.volumes.get(mounts["/etc"]["Name"]).mountpoint / "passwd").exists()
    assert list(engine.volumes.get(mounts["/new"]["Name"]).mountpoint.iterdir()) == []
    assert mounts["/new"]["Source"] == str(engine.volumes.get(mounts["/new"]["Name"]).mountpoint)
    assert engine.volumes.holders("named") == {created.id}
    with pytest.raises(Conflict):
        engine.volumes.remove("named")


def test_volumes_of_another_container_are_shared(plain):
    first = plain.create("first", {"Volumes": {"/data": {}}})
    second = plain.create("second", host={"VolumesFrom": ["first:ro"]})
    (mine,), (other,) = plain.inspect("second")["Mounts"], plain.inspect("first")["Mounts"]
    assert mine["Name"] == other["Name"]
    assert not mine["RW"]
    assert plain.volumes.holders(mine["Name"]) == {first.id, second.id}


def test_a_shared_network_keeps_the_id_and_the_host_name_of_the_other(plain):
    first = plain.create("first", {"Hostname": "box"})
    plain.create("second", host={"NetworkMode": "container:first", "PidMode": "container:first"})
    found = plain.inspect("second")
    assert found["HostConfig"]["NetworkMode"] == found["HostConfig"]["PidMode"] == f"container:{first.id}"
    assert found["Config"]["Hostname"] == "box"
    assert found["NetworkSettings"]["Networks"] == {}


def test_the_working_directory_is_made(engine):
    created = engine.create("web", {"WorkingDir": "/srv/deep"})
    root = engine.stores.layers.mount_rw(created.id)
    assert (root / "srv" / "deep").is_dir()
    engine.stores.layers.unmount_rw(created.id)


REFUSED = [
    ({"Image": "nothing"}, {}, NoSuchImage, "No such image: nothing:latest"),
    ({"Entrypoint": [""], "Cmd": []}, {}, InvalidArgument, "No command specified"),
    ({"WorkingDir": "here"}, {}, InvalidArgument, "needs to be an absolute path"),
    ({"WorkingDir": "/etc/passwd"}, {}, InvalidArgument, "Cannot mkdir: /etc/passwd is not a directory"),
    ({"Volumes": {"/etc/passwd": {}}}, {}, InvalidArgument, "cannot mount volume over existing file"),
    ({"Env": ["=x"]}, {}, InvalidArgument, "invalid environment variable: =x"),
    ({"StopSignal": "SIG-WHAT?"}, {}, InvalidArgument, "invalid signal"),
    ({"Env": 5}, {}, InvalidArgument, "Env is not a list"),
    ({}, {"Binds": ["a:b:c:d"]}, InvalidArgument, "invalid volume specification: 'a:b:c:d'"),
    ({}, {"Binds": ["x:rel"]}, InvalidArgument, "mount path must be absolute"),
    ({}, {"Binds": ["/tmp:/"]}, InvalidArgument, "destination can't be '/'"),
    ({}, {"Binds": ["/tmp:/x:what"]}, InvalidArgument, "invalid mode: what"),
    ({}, {"Binds": ["v:/x", "w:/x"]}, InvalidArgument, "Duplicate mount point: /x"),
    ({}, {"Mounts": [{"Type": "bind", "Source": "/not/there", "Target": "/x"}]}, InvalidArgument, "does not exist"),
    ({}, {"Mounts": [{"Type": "what", "Target": "/x"}]}, InvalidArgument, "mount type unknown"),
    ({}, {"Tmpfs": {"/x": "what"}}, InvalidArgument, "Invalid tmpfs option"),
    ({}, {"Memory": 1024}, InvalidArgument, "Minimum memory limit allowed is 6MB"),
    ({}, {"Memory": 64 << 20, "MemorySwap": 8 << 20}, InvalidArgument, "memoryswap limit should be larger"),
    ({}, {"NanoCpus": 3 * 10**9}, InvalidArgument, "Range of CPUs is from 0.01 to 2.00"),
    ({}, {"NanoCpus": 10**9, "CpuPeriod": 5000}, InvalidArgument, "Nano CPUs and CPU Period cannot both"),
    ({}, {"CapAdd": ["FLY"]}, InvalidArgument, 'invalid capability: "FLY"'),
    ({}, {"SecurityOpt": ["what"]}, InvalidArgument, "invalid --security-opt 1"),
    ({}, {"Runtime": "other"}, InvalidArgument, "unknown or invalid runtime name: other"),
    ({}, {"Ulimits": [{"Name": "what", "Soft": 1, "Hard": 1}]}, InvalidArgument, "invalid ulimit type"),
    ({}, {"NetworkMode": "container:nobody"}, InvalidArgument, "No such container: nobody"),
    ({"Hostname": "h"}, {"NetworkMode": "container:x"}, InvalidArgument, "hostname and the network mode"),
    ({}, {"PidMode": "what"}, InvalidArgument, "invalid Pid mode"),
    (
        {},
        {"RestartPolicy": {"Name": "always"}, "AutoRemove": True},
        InvalidArgument,
        "'AutoRemove' container with restart",
    ),
    (
        {},
        {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}},
        InvalidArgument,
        "only be used with 'on-failure'",
    ),
    ({}, {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -2}}, InvalidArgument, "cannot be negative"),
    ({}, {"RestartPolicy": {"Name": "what"}}, InvalidArgument, "unknown policy 'what'"),
    ({}, {"NetworkMode": "mine"}, NotServed, "user-defined networks are not served yet: network mine"),
    ({}, {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, NotServed, "publishing ports"),
    ({}, {"PublishAllPorts": True}, NotServed, "publishing ports"),
    ({}, {"Links": ["a:b"]}, NotServed, "links"),
    ({}, {"DeviceRequests": [{"Count": 1}]}, NotServed, "--gpus"),
    ({}, {"LogConfig": {"Type": "syslog"}}, NotServed, "log driver syslog"),
    ({}, {"LogConfig": {"Type": "asdf"}}, InvalidArgument, "logger: no log driver named 'asdf' is registered"),
    ({}, {"StorageOpt": {"what": "1"}}, InvalidArgument, "unknown option what"),
    ({}, {"VolumesFrom": ["nobody"]}, InvalidArgument, "No such container: nobody"),
]


@pytest.mark.parametrize(("config", "host", "error", "words"), REFUSED)
def test_what_makes_no_sense_is_refused_and_nothing_is_left(plain, config, host, error, words):
    before = plain.everything()
    with pytest.raises(error, match=re.escape(words)):
        plain.create("web", config, host)
    assert plain.everything() == before
    assert plain.events.events == []


def test_volumes_made_for_a_container_that_fails_are_removed(plain):
    before = plain.everything()
    with pytest.raises(InvalidArgument):
        plain.create("web", {"Volumes": {"/anonymous": {}, "/etc/passwd": {}}}, {"Binds": ["fresh:/x"]})
    assert plain.everything() == before


def test_a_volume_that_was_there_survives_a_failure(plain):
    plain.volumes.create("kept")
    with pytest.raises(InvalidArgument):
        plain.create("web", {"Volumes": {"/etc/passwd": {}}}, {"Binds": ["kept:/x"]})
    assert plain.volumes.get("kept")
    plain.volumes.remove("kept")


def test_a_name_in_use_is_refused_and_nothing_is_left(plain):
    created = plain.create("web")
    before = plain.everything()
    with pytest.raises(NameInUse, match=f'"/web" is already in use by container "{created.id}"'):
        plain.create("web")
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        plain.create("-")
    assert plain.everything() == before


def test_a_foreign_platform_is_refused_when_asked_for(plain):
    with pytest.raises(NoSuchImage, match="does not provide the specified platform"):
        plain.create("web", platform=Platform("linux", "arm64"))


def test_a_health_check_is_kept(plain):
    created = plain.create("web", {"Healthcheck": {"Test": ["CMD", "true"]}})
    assert created.warnings == ()
    assert plain.inspect("web")["Config"]["Healthcheck"] == {"Test": ["CMD", "true"]}


def test_the_list_is_newest_first_and_shows_only_running_ones_unless_asked(plain):
    first, second = plain.create("first"), plain.create("second", {"Cmd": ["echo", "a b"]})
    assert [one["Id"] for one in plain.list()] == [second.id, first.id]
    assert plain.list(all=False) == []
    assert [one["Id"] for one in plain.list(all=False, limit=1)] == [second.id]
    found = plain.list()[0]
    assert found["Command"] == "echo 'a b'"
    assert (found["State"], found["Status"]) == ("created", "Created")
    assert found["Image"] == "busybox"


def test_sizes_are_told_when_asked_for(plain):
    plain.create("web")
    assert "SizeRootFs" not in plain.list()[0]
    assert plain.list(size=True)[0]["SizeRootFs"] > 1_000_000
    assert plain.inspect("web", size=True)["SizeRootFs"] > 1_000_000


FILTERS = [
    ({"name": ["^/we"]}, {"web"}),
    ({"name": ["eb"]}, {"web"}),
    ({"name": ["(", "db"]}, {"db"}),
    ({"label": ["tier=back"]}, {"db"}),
    ({"label": ["tier"]}, {"db", "web"}),
    ({"label": ["tier", "tier=front"]}, {"web"}),
    ({"ancestor": ["busybox"]}, {"db", "web"}),
    ({"ancestor": ["nothing"]}, set()),
    ({"status": ["created"]}, {"db", "web"}),
    ({"status": ["running"]}, set()),
    ({"exited": ["0"]}, set()),
    ({"volume": ["named"]}, {"db"}),
    ({"volume": ["/data"]}, {"db"}),
    ({"network": ["none"]}, {"web"}),
    ({"before": ["web"]}, {"db"}),
    ({"since": ["db"]}, {"web"}),
    ({"expose": ["80-90/tcp"]}, {"web"}),
    ({"publish": ["80"]}, set()),
    ({"health": ["none"]}, {"db", "web"}),
    ({"is-task": ["true"]}, set()),
]


@pytest.mark.parametrize(("filters", "names"), FILTERS)
def test_filters_choose_as_docker_does(plain, filters, names):
    plain.create("db", {"Labels": {"tier": "back"}}, {"Binds": ["named:/data"]})
    web = {"Labels": {"tier": "front"}, "ExposedPorts": {"80/tcp": {}}}
    plain.create("web", web, {"NetworkMode": "none"})
    found = plain.list(filters={name: tuple(values) for name, values in filters.items()})
    assert {one["Names"][0][1:] for one in found} == names


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"colour": ["red"]}, InvalidArgument),
        ({"status": ["happy"]}, InvalidArgument),
        ({"exited": ["x"]}, InvalidArgument),
        ({"expose": ["x"]}, InvalidArgument),
        ({"before": ["nobody"]}, NoSuchContainer),
    ],
)
def test_filters_that_nothing_understands_are_refused(plain, filters, error):
    with pytest.raises(error):
        plain.list(filters={name: tuple(values) for name, values in filters.items()})


def test_a_renamed_container_answers_to_its_new_name(plain):
    created = plain.create("web")
    plain.create("db")
    plain.rename("web", "shop")
    assert plain.inspect("shop")["Name"] == "/shop"
    assert plain.events.events[-1] == (
        "container", "rename", created.id, {"image": "busybox", "name": "shop", "oldName": "/web"},
    )  # fmt: skip
    for wanted in ("db", "shop", "", "-x"):
        with pytest.raises(LaminaError):
            plain.rename("shop", wanted)
    assert plain.inspect("shop")["Id"] == created.id


def test_what_is_shown_is_json(plain):
    plain.create("web")
    json.dumps([plain.inspect("web", size=True), plain.list(size=True)])
