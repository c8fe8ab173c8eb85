"""The command line of `lamina daemon`: dockerd's own flag names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lamina.daemon.config import DEFAULT_HOST, LOG_LEVELS, DaemonConfig, from_sources, parse_storage_opts
from lamina.errors import LaminaError

_PATHS = ("data_root", "exec_root", "pidfile", "tlscacert", "tlscert", "tlskey", "certs_dir")


@click.command("daemon", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config-file", metavar="FILE", help="Read dockerd's daemon.json keys from here.")
@click.option("--data-root", metavar="DIR", help="Images, layers, containers, volumes.  [default: /var/lib/lamina]")
@click.option("--exec-root", metavar="DIR", help="State that a reboot may take.  [default: /run/lamina]")
@click.option("-p", "--pidfile", metavar="FILE", help="[default: /run/lamina.pid]")
@click.option(
    "-H",
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help=f"unix:///path, fd://, tcp://address:port; repeatable.  [default: {DEFAULT_HOST}]",
)
@click.option("-G", "--group", metavar="GROUP", help="Who may use the unix socket.  [default: docker]")
@click.option("-s", "--storage-driver", metavar="NAME", help="overlay2 or vfs; chosen by itself when left out.")
@click.option("--storage-opt", "storage_opts", multiple=True, metavar="KEY=VALUE")
@click.option("-b", "--bridge", metavar="NAME", help="An existing bridge, or none.")
@click.option("--bip", metavar="ADDRESS/LENGTH", help="Address of the default bridge.")
@click.option("--insecure-registry", "insecure_registries", multiple=True, metavar="HOST|CIDR")
@click.option("--registry-mirror", "registry_mirrors", multiple=True, metavar="URL")
@click.option("--certs-dir", metavar="DIR", help="HOST/ca.crt and client certificates.  [default: /etc/docker/certs.d]")
@click.option("-l", "--log-level", type=click.Choice(LOG_LEVELS))
@click.option("-D", "--debug", is_flag=True, default=None)
@click.option("--default-runtime", metavar="NAME", help="runc or crun; the one that works here when left out.")
@click.option("--max-concurrent-downloads", type=int)
@click.option("--max-concurrent-uploads", type=int)
@click.option("--max-download-attempts", type=int)
@click.option("--dns", multiple=True, metavar="ADDRESS")
@click.option("--dns-opt", "dns_opts", multiple=True)
@click.option("--dns-search", "dns_search", multiple=True)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--iptables/--no-iptables", default=None, help="Make packet filter rules (with nftables).")
@click.option("--ip-forward/--no-ip-forward", default=None)
@click.option("--ip-masq/--no-ip-masq", default=None)
@click.option("--init-path", metavar="PROGRAM", help="What --init puts first into a container.  [default: docker-init]")
@click.option("--tls", is_flag=True, default=None)
@click.option("--tlsverify", is_flag=True, default=None, help="Only clients with a certificate of --tlscacert.")
@click.option("--tlscacert", metavar="FILE")
@click.option("--tlscert", metavar="FILE")
@click.option("--tlskey", metavar="FILE")
@click.option("--allow-plain-tcp", is_flag=True, default=None, help="Let tcp:// listen on loopback without TLS.")
def command(config_file: str | None, **given: Any) -> None:
    """Run the engine.

    \b
    lamina daemon                                    as a system service
    lamina daemon --data-root /tmp/l --exec-root /tmp/x -p /tmp/l.pid -H unix:///tmp/l.sock
    DOCKER_HOST=unix:///tmp/l.sock docker run hello-world
    """
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    if "storage_opts" in flags:
        flags["storage_opts"] = parse_storage_opts(flags["storage_opts"])
    for name in _PATHS:
        if name in flags:
            flags[name] = Path(flags[name])
    try:
        config = from_sources(flags, Path(config_file) if config_file else None)
        _run(config)
    except LaminaError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        raise click.ClickException(f"{error}{hint}") from error


def _run(config: DaemonConfig) -> None:
    from lamina.daemon.main import run

    run(config)
