"""Which registry is asked, with whose credentials."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from lamina.distribution.endpoints import DOCKER_HUB, endpoints_for
from lamina.distribution.registries import _for_this_registry
from lamina.distribution.registry_config import RegistryConfig, parse_config, split_domain
from lamina.errors import InvalidArgument
from lamina.wire.engine.auth import RegistryAuth


def bases(domain: str, config: RegistryConfig) -> list[list[str]]:
    found = asyncio.run(endpoints_for(domain, config))
    return [[str(base) for base in endpoint.bases] for endpoint in found]


@pytest.mark.parametrize("domain", ["127.0.0.1:5000", "127.9.9.9", "localhost:5000", "[::1]:5000"])
def test_loopback_may_go_without_tls(domain: str) -> None:
    assert bases(domain, RegistryConfig()) == [[f"https://{domain}", f"http://{domain}"]]


@pytest.mark.parametrize("domain", ["192.0.2.1:5000", "[2001:db8::1]:5000", "registry.invalid"])
def test_others_may_not(domain: str) -> None:
    assert bases(domain, RegistryConfig()) == [[f"https://{domain}"]]


def test_insecure_registries_are_named_or_in_a_network() -> None:
    config = parse_config(insecure=["registry.invalid:5000", "192.0.2.0/24", "2001:db8::/32"])
    assert bases("registry.invalid:5000", config) == [["https://registry.invalid:5000", "http://registry.invalid:5000"]]
    assert bases("registry.invalid:5001", config) == [["https://registry.invalid:5001"]]
    assert bases("192.0.2.77", config) == [["https://192.0.2.77", "http://192.0.2.77"]]
    assert bases("192.0.3.77", config) == [["https://192.0.3.77"]]
    assert len(bases("[2001:db8::5]:5000", config)[0]) == 2


def test_mirrors_are_asked_before_docker_s_registry_and_for_nothing_else() -> None:
    config = parse_config(mirrors=["http://127.0.0.1:5000/", "https://mirror.invalid"])
    hub = [f"https://{DOCKER_HUB}"]
    assert bases("docker.io", config) == [["http://127.0.0.1:5000"], ["https://mirror.invalid"], hub]
    assert bases("docker.io", RegistryConfig()) == [hub]
    assert bases("quay.invalid", config) == [["https://quay.invalid"]]


@pytest.mark.parametrize("text", ["http://registry", "10.0.0.0/99", "a/b"])
def test_what_is_no_insecure_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="insecure registry"):
        parse_config(insecure=[text])


@pytest.mark.parametrize(
    "text", ["mirror", "ftp://mirror", "https://mirror/path", "https://me:x@mirror", "https://m?q"]
)
def test_what_is_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        parse_config(mirrors=[text])


def test_a_domain_is_split() -> None:
    assert split_domain("Registry.test:5000") == ("registry.test", 5000)
    assert split_domain("[::1]:80") == ("::1", 80)
    assert split_domain("localhost") == ("localhost", None)
    assert ipaddress.ip_address(split_domain("[::1]")[0]).is_loopback


@pytest.mark.parametrize(
    ("domain", "address", "is_sent"),
    [
        ("registry.test", "", True),
        ("registry.test", "registry.test", True),
        ("registry.test", "https://registry.test/v2/", True),
        ("registry.test:5000", "http://registry.test:5000", True),
        ("registry.test", "evil.test", False),
        ("registry.test", "https://registry.test@evil.test/", False),
        ("registry.test", "registry.test:5000", False),
        ("evil.test", "https://index.docker.io/v1/", False),
        ("docker.io", "https://index.docker.io/v1/", True),
        ("docker.io", "registry.test", False),
    ],
)
def test_credentials_go_to_the_registry_that_they_are_for(domain: str, address: str, is_sent: bool) -> None:
    auth = RegistryAuth("me", "secret", server_address=address)
    assert (_for_this_registry(domain, auth) is auth) is is_sent
