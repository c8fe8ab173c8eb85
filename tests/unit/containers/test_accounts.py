import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.containers.accounts import MAX_ID, ResolvedUser, resolve
from lamina.errors import InvalidArgument

PASSWD = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:2::/sbin:\n1000:x:0:0:a trap:/:\nbroken\nbig:x:99999999999:0::/:\n"
GROUP = b"root:x:0:\nbin:x:2:root,daemon\nwheel:x:10:root\n20:x:0:\n"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", ResolvedUser(0, 0, (0, 2, 10), "/root")),
        ("root", ResolvedUser(0, 0, (0, 2, 10), "/root")),
        ("daemon", ResolvedUser(1, 2, (2,), "/sbin")),
        ("1", ResolvedUser(1, 2, (2,), "/sbin")),
        ("daemon:wheel", ResolvedUser(1, 10, (10,), "/sbin")),
        ("daemon:77", ResolvedUser(1, 77, (77,), "/sbin")),
        ("500", ResolvedUser(500, 0, (0,), "")),
        ("500:600", ResolvedUser(500, 600, (600,), "")),
    ],
)
def test_users_and_groups_are_found(wanted, expected):
    assert resolve(wanted, [], PASSWD, GROUP) == expected


def test_a_number_stays_a_number_whatever_somebody_is_called():
    assert resolve("1000", [], PASSWD, GROUP).uid == 1000
    assert resolve("1:20", [], PASSWD, GROUP).gid == 20


def test_added_groups_come_on_top():
    assert resolve("daemon", ["wheel", "77", "2"], PASSWD, GROUP).groups == (2, 10, 77)


@pytest.mark.parametrize("wanted", ["2147483648", "99999999999999", "-1", "0:2147483648", "0:-5", "4294967296"])
def test_numbers_out_of_range_are_refused(wanted):
    with pytest.raises(InvalidArgument, match="must be in range 0-2147483647"):
        resolve(wanted, [], PASSWD, GROUP)


def test_unknown_names_are_refused_in_dockers_words():
    with pytest.raises(InvalidArgument, match=r"^unable to find user nobody: no matching entries in passwd file$"):
        resolve("nobody", [], PASSWD, GROUP)
    with pytest.raises(InvalidArgument, match=r"^unable to find group none: no matching entries in group file$"):
        resolve("root:none", [], PASSWD, GROUP)
    with pytest.raises(InvalidArgument, match=r"^Unable to find group none: no matching entries in group file$"):
        resolve("root", ["none"], PASSWD, GROUP)


def test_without_files_numbers_work():
    assert resolve("5:6", [], b"", b"") == ResolvedUser(5, 6, (6,), "")


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=20))
def test_whatever_is_in_the_files_the_answer_is_in_range(passwd, group, wanted):
    try:
        found = resolve(wanted, [], passwd, group)
    except InvalidArgument:
        return
    assert all(0 <= number <= MAX_ID for number in (found.uid, found.gid, *found.groups))
