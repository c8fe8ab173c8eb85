"""Trust: certs.d, client certificates, hosts that may go without; against registries with certificates made here."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.tls import TlsContexts
from lamina.errors import InvalidArgument, Unavailable
from tests.fakes.registries import Hostile, client, repository, serving


def openssl(*arguments: str, cwd: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    subprocess.run([program, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt; server.crt and .key for localhost and 127.0.0.1; client.cert and .key; other.crt, a stranger."""
    home = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
            cwd=home,
        )
    for name, certificate, extension in (
        ("server", "server.crt", "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1"),
        ("client", "client.cert", "extendedKeyUsage=clientAuth"),
    ):
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            "r",
            cwd=home,
        )
        (home / "extension").write_text(extension)
        openssl(
            *("x509", "-req", "-in", "r", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"),
            *("-extfile", "extension", "-out", certificate),
            cwd=home,
        )
    return home


def server(certificates: Path, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.crt")
    return context


# Loopback is insecure by default; with no networks the rules for any other host hold.
STRICT = RegistryConfig(insecure_networks=(), certs_dirs=())


def ask(
    config: RegistryConfig, context: ssl.SSLContext, host: str = "127.0.0.1", *, certs: Path | None = None
) -> bytes:
    """What a manifest request brings; `certs` becomes certs.d/HOST:PORT."""

    async def run() -> bytes:
        registry = Hostile()
        registry.on("GET", "/v2/a/manifests/1", web.Response(body=b"{}"))
        async with serving(registry.app(), ssl_context=context) as port:
            settings = config
            if certs is not None:
                where = certs.parent / f"certs.d-{port}"
                shutil.copytree(certs, where / f"{host}:{port}")
                settings = RegistryConfig(
                    insecure_networks=config.insecure_networks,
                    insecure_hosts=config.insecure_hosts,
                    certs_dirs=(where,),
                )
            async with client(settings) as registries:
                source = await repository(registries, f"{host}:{port}/a")
                return (await source.manifest("1", "manifest for a")).raw

    return asyncio.run(run())


def certs_d(tmp_path: Path, certificates: Path, *names: str) -> Path:
    found = tmp_path / "host"
    found.mkdir()
    for name in names:
        shutil.copy(certificates / name, found)
    return found


def test_a_certificate_of_nobody_we_know_is_refused(certificates: Path) -> None:
    with pytest.raises(Unavailable, match="is not trusted: x509: certificate signed by unknown authority") as failure:
        ask(STRICT, server(certificates))
    assert "/etc/docker/certs.d/127.0.0.1:" in failure.value.hint


def test_the_authority_in_certs_d_is_trusted(certificates: Path, tmp_path: Path) -> None:
    assert ask(STRICT, server(certificates), certs=certs_d(tmp_path, certificates, "ca.crt")) == b"{}"


def test_another_authority_in_certs_d_does_not_help(certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is not trusted"):
        ask(STRICT, server(certificates), certs=certs_d(tmp_path, certificates, "other.crt"))


def test_a_certificate_for_another_name_is_refused(certificates: Path, tmp_path: Path) -> None:
    certs = certs_d(tmp_path, certificates, "ca.crt")
    with pytest.raises(Unavailable, match=r"is not trusted: x509: .*IP address mismatch"):
        ask_other_name(STRICT, server(certificates), certs)


def ask_other_name(config: RegistryConfig, context: ssl.SSLContext, certs: Path) -> None:
    async def run() -> None:
        registry = Hostile()
        runner = web.AppRunner(registry.app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.2", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        where = certs.parent / "certs.d"
        shutil.copytree(certs, where / f"127.0.0.2:{port}")
        try:
            settings = RegistryConfig(insecure_networks=config.insecure_networks, certs_dirs=(where,))
            async with client(settings) as registries:
                await (await repository(registries, f"127.0.0.2:{port}/a")).manifest("1", "manifest for a")
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_an_insecure_registry_is_asked_with_tls_whoever_answers(certificates: Path) -> None:
    assert ask(RegistryConfig(certs_dirs=()), server(certificates)) == b"{}"


def test_a_client_certificate_is_shown(certificates: Path, tmp_path: Path) -> None:
    certs = certs_d(tmp_path, certificates, "ca.crt", "client.cert", "client.key")
    assert ask(STRICT, server(certificates, wants_client=True), certs=certs) == b"{}"


def test_without_the_client_certificate_nothing_is_served(certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        ask(STRICT, server(certificates, wants_client=True), certs=certs_d(tmp_path, certificates, "ca.crt"))


def test_plain_http_is_not_spoken_to_a_registry_that_should_have_tls() -> None:
    async def run() -> None:
        registry = Hostile()
        async with serving(registry.app()) as port, client(STRICT) as registries:
            source = await repository(registries, f"127.0.0.1:{port}/a")
            with pytest.raises(Unavailable, match="http: server gave HTTP response to HTTPS client"):
                await source.manifest("1", "manifest for a")
            assert registry.requests == []

    asyncio.run(run())


def test_a_client_certificate_without_its_key_is_named(certificates: Path, tmp_path: Path) -> None:
    shutil.copytree(certs_d(tmp_path, certificates, "client.cert"), tmp_path / "d" / "registry.test")
    with pytest.raises(InvalidArgument, match=r"missing key client\.key for client certificate .*client\.cert"):
        TlsContexts((tmp_path / "d",)).context("registry.test", insecure=False)


def test_a_broken_authority_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.test").mkdir()
    (tmp_path / "registry.test" / "broken.crt").write_text("no certificate")
    with pytest.raises(InvalidArgument, match=r"broken\.crt holds no certificate"):
        TlsContexts((tmp_path,)).context("registry.test", insecure=False)


def test_a_changed_directory_is_seen(certificates: Path, tmp_path: Path) -> None:
    contexts = TlsContexts((tmp_path,))
    before = contexts.context("registry.test", insecure=False)
    assert contexts.context("registry.test", insecure=False) is before
    (tmp_path / "registry.test").mkdir()
    shutil.copy(certificates / "ca.crt", tmp_path / "registry.test")
    assert contexts.context("registry.test", insecure=False) is not before
