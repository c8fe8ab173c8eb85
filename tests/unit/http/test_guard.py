from __future__ import annotations

import pytest

from lamina.errors import PermissionDenied
from lamina.http.guard import check_tcp, is_loopback_name


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "a.localhost", "localhost.", "127.0.0.1", "127.9.9.9:1",
                                  "[::1]", "[::1]:2375"])  # fmt: skip
def test_names_of_this_host(host):
    assert is_loopback_name(host)


@pytest.mark.parametrize("host", ["", "evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0",
                                  "[::2]:1", "128.0.0.1:80", "notlocalhost"])  # fmt: skip
def test_other_names(host):
    assert not is_loopback_name(host)


def test_with_tls_the_host_is_free_but_pages_still_do_not_speak():
    check_tcp({"Host": "build.example"}, tls=True)
    with pytest.raises(PermissionDenied):
        check_tcp({"Host": "build.example", "Origin": "https://build.example"}, tls=True)
    with pytest.raises(PermissionDenied):
        check_tcp({"Host": "build.example"}, tls=False)
