"""`python -m lamina` and the `lamina` program: the client, or the engine with `daemon`."""

from __future__ import annotations

import sys


def main() -> None:
    """Hand over to the side that is asked for; only that side is imported, so that the client starts fast."""
    if sys.argv[1:2] == ["daemon"]:
        from lamina.daemon.flags import command

        command(args=sys.argv[2:], prog_name="lamina daemon")
        return
    if sys.argv[1:2] == ["unionfs"]:
        from lamina.unionfs.program import main as unionfs

        sys.exit(unionfs(sys.argv[2:]))
    from lamina.cli.main import main as client

    client()


if __name__ == "__main__":
    main()
