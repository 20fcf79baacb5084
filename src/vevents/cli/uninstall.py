"""`vevents uninstall`: remove the files that `vevents install` wrote."""

from __future__ import annotations

from pathlib import Path

import click

from vevents.cli.common import say, setup_messages
from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError


@click.command(name="uninstall")
@click.option("--root", metavar="DIR", default="/", help="Remove from this file tree.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed.")
def command(root: str, dry_run: bool) -> int:
    """Remove the files that install wrote.

    What was edited since is named and kept; a key in /etc/vevents.env is kept that way as well.
    The log stays as it is. Stop what runs first: systemctl disable --now vevents-agent.service, and
    vevents-store.service where install was told --store.

    Exit codes: 0 done, 1 a file cannot be removed, 2 wrong usage.
    """
    from vevents import installation

    setup_messages("warning")
    if not Path(root).is_dir():
        raise ConfigurationError(f"--root: {root} is not a directory")
    removed, kept = installation.remove(Path(root), dry_run=dry_run)
    for path in removed:
        say(f"{'would remove' if dry_run else 'removed'} {path}")
    for path in kept:
        click.echo(f"kept {path}: it was edited", err=True)
    return ExitCode.OK
