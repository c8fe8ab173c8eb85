"""Options of the local volume driver."""

from lamina.volumes.options import LocalOptions, decode_options, parse_options


def test_no_option_is_a_plain_directory() -> None:
    assert parse_options({}) is None
    assert parse_options({"type": "", "o": "", "device": ""}) is None


def test_words_become_flags_and_the_rest_is_data() -> None:
    found = LocalOptions("tmpfs", "tmpfs", "ro,size=1m,nosuid,uid=5,rw")
    assert found.mount_arguments() == ("tmpfs", 0x3, "size=1m,uid=5")


def test_a_bind_has_neither_type_nor_data() -> None:
    assert LocalOptions("none", "/srv", "rbind,ro,x=y").mount_arguments() == ("", 0x5001, "")


def test_what_is_stored_comes_back() -> None:
    found = LocalOptions("none", "/srv", "bind")
    assert decode_options(found.to_json()) == found
    assert decode_options(LocalOptions("", "", "").to_json()) is None
