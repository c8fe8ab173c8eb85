import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.containers.mountpoints import parse_bind, parse_mount, wanted_mounts
from lamina.errors import InvalidArgument, NotServed


@pytest.mark.parametrize(
    ("given_text", "kind", "source", "destination", "rw", "propagation", "copies"),
    [
        ("/data", "volume", "", "/data", True, "", True),
        ("vol:/data", "volume", "vol", "/data", True, "", True),
        ("vol:/data:ro,nocopy", "volume", "vol", "/data", False, "", False),
        ("/h:/c", "bind", "/h", "/c", True, "rprivate", True),
        ("/h/../x:/c/./d/:ro,rslave,z", "bind", "/x", "/c/d", False, "rslave", True),
    ],
)
def test_binds_are_read(given_text, kind, source, destination, rw, propagation, copies):
    found = parse_bind(given_text)
    assert (found.kind, found.source, found.destination, found.rw, found.propagation, found.copies) == (
        kind, source, destination, rw, propagation, copies,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given_text",
    [
        "",
        ":",
        "a:",
        ":/b",
        "/a:/b:",
        "/a:/b:ro:x",
        "/a:/b:ro,rw",
        "/a:/b:nocopy",
        "v:/b:shared",
        "/x:rw",
        "v:b",
        "/a:/",
    ],
)
def test_other_forms_are_refused(given_text):
    with pytest.raises(InvalidArgument):
        parse_bind(given_text)


@given(st.text(alphabet="/:.,arow\0", max_size=20))
def test_a_destination_is_always_absolute_and_clean(text):
    try:
        found = parse_bind(text)
    except InvalidArgument:
        return
    assert found.destination.startswith("/")
    assert found.destination != "/"
    assert not {"", ".", ".."} & set(found.destination[1:].split("/"))


def test_the_api_form_is_read_and_kept():
    spec = {"Type": "bind", "Source": "/h", "Target": "/c", "ReadOnly": True, "BindOptions": {"Propagation": "shared"}}
    found = parse_mount(spec)
    assert (found.source, found.rw, found.propagation, found.must_exist) == ("/h", False, "shared", True)
    assert found.spec == spec


def test_driver_options_and_labels_go_to_the_volume():
    options = {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}, "NoCopy": True}
    found = parse_mount({"Type": "volume", "Source": "v", "Target": "/c", "VolumeOptions": options})
    assert (found.labels, found.options, found.copies) == ((("a", "b"),), (("type", "tmpfs"),), False)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"Type": "bind", "Target": "/c"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "/h"}, "field Target must not be empty"),
        ({"Type": "bind", "Source": "h", "Target": "/c"}, "mount path must be absolute"),
        ({"Type": "bind", "Source": "/h", "Target": "/c", "VolumeOptions": {"NoCopy": True}}, "VolumeOptions"),
        ({"Type": "tmpfs", "Source": "x", "Target": "/c"}, "field Source must not be specified"),
        ({"Type": "what", "Target": "/c"}, "mount type unknown"),
    ],
)
def test_api_forms_that_make_no_sense_are_refused(spec, words):
    with pytest.raises(InvalidArgument, match=words):
        parse_mount(spec)


def test_mounts_that_come_later_are_named():
    with pytest.raises(NotServed, match="type image"):
        parse_mount({"Type": "image", "Source": "x", "Target": "/c"})
    with pytest.raises(NotServed, match="volume-subpath"):
        parse_mount({"Type": "volume", "Source": "x", "Target": "/c", "VolumeOptions": {"Subpath": "y"}})


def test_a_users_mount_stands_in_for_the_images_volume():
    found = wanted_mounts({"Volumes": {"/data/": {}, "/more": {}}}, {"Binds": ["mine:/data"]}, "/var/lib/lamina")
    assert [(mount.source, mount.destination) for mount in found] == [("mine", "/data"), ("", "/more")]


def test_a_tmpfs_stands_in_for_the_images_volume_too():
    assert wanted_mounts({"Volumes": {"/data": {}}}, {"Tmpfs": {"/data": ""}}, "/r") == []


@pytest.mark.parametrize("host", [{"Binds": ["a:/x", "b:/x/"]}, {"Binds": ["a:/x"], "Tmpfs": {"/x": ""}}])
def test_two_mounts_in_one_place_are_refused(host):
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /x"):
        wanted_mounts({}, host, "/r")


def test_a_bind_of_the_data_root_does_not_keep_the_daemons_mounts():
    (found,) = wanted_mounts({}, {"Binds": ["/var:/x"]}, "/var/lib/lamina")
    assert found.propagation == "rslave"
    with pytest.raises(InvalidArgument, match="daemon root"):
        wanted_mounts({}, {"Binds": ["/var:/x:rprivate"]}, "/var/lib/lamina")
