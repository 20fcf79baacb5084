"""`vevents install`: write the files that run the agent as a service."""

from __future__ import annotations

import pwd
from pathlib import Path

import click

from vevents.cli.common import load_settings, say, settings_options
from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError


@click.command(name="install")
@settings_options
@click.option(
    "--user",
    metavar="NAME",
    help="Who runs it; the owner of the log.  [default: that owner, else vevents]",
)
@click.option(
    "--root",
    metavar="DIR",
    default="/",
    help="Write into this file tree, for building an image.",
)
@click.option(
    "--for",
    "system",
    type=click.Choice(["systemd", "plain"]),
    help="What starts services; plain means hooks and cron.  [default: what the system has]",
)
@click.option(
    "--command",
    "program",
    metavar="COMMAND",
    help="How vevents is started on the device.  [default: as now]",
)
@click.option("--store", is_flag=True, help="Run `vevents serve`, the local event store, as well.")
@click.option("--dry-run", is_flag=True, help="Print the files and write nothing.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    user: str | None,
    root: str,
    system: str | None,
    program: str | None,
    store: bool,
    dry_run: bool,
) -> int:
    """Write the files that run the agent as a service.

    With systemd: a hardened unit for `vevents agent`, and a hook that tells it when NetworkManager
    finds the internet. Without: hooks for ifupdown and udhcpc and a line for cron, which run
    `vevents flush`. The key belongs into /etc/vevents.env, which only root may read.

    With persist_dir in the settings the log is RAM-first: the unit restores it before the agent
    starts, and the agent writes the copy before it ends.

    With --store, which needs systemd, also a unit for `vevents serve`. It listens on
    http://127.0.0.1:8001, and what its clients have to show is EVENT_INGESTION_API_KEY in the same
    file. Each service is given its own key alone.

    What was edited, or written by somebody else, is not overwritten. `vevents uninstall` removes
    what this wrote.

    Exit codes: 0 done, 1 a file cannot be written, 2 settings, or a strange file is in the way.
    """
    from vevents import installation

    settings = load_settings(dir_, config, log_level)
    directory = settings.require_directory().absolute()
    tree = Path(root)
    if not tree.is_dir():
        raise ConfigurationError(f"--root: {root} is not a directory")
    chosen = installation.system_of(tree) if system is None else installation.System(system)
    who = user or _owner_of(directory if tree == Path("/") else None)
    planned = installation.plan(
        chosen,
        root=tree,
        directory=directory,
        user=who,
        command=program or installation.own_command(),
        config=None if config is None else Path(config).absolute(),
        persist_dir=None if settings.persist_dir is None else settings.persist_dir.absolute(),
        store=store,
    )
    if store and program is None and tree == Path("/"):
        from vevents.store import require_packages

        require_packages()
    if dry_run:
        for file in planned:
            say(f"# ---- {file.path} (mode {file.mode:04o})\n{file.text}")
        return ExitCode.OK
    for file, written in installation.write(planned, tree):
        say(f"{'wrote' if written else 'kept '} {file.path}")
    say(_next_steps(chosen, who, store=store, live=tree == Path("/")))
    return ExitCode.OK


def _owner_of(directory: Path | None) -> str:
    try:
        if directory is not None:
            return pwd.getpwuid(directory.stat().st_uid).pw_name
    except (OSError, KeyError):
        pass
    return "vevents"


def _next_steps(system: str, user: str, *, store: bool, live: bool) -> str:
    steps = []
    if live:
        try:
            pwd.getpwnam(user)
        except KeyError:
            steps.append(f"useradd --system --no-create-home --shell /usr/sbin/nologin {user}")
    steps.append("write the key into /etc/vevents.env")
    if system == "systemd":
        units = "vevents-agent.service" + (" vevents-store.service" if store else "")
        if live:
            steps += ["systemctl daemon-reload", f"systemctl enable --now {units}"]
        else:
            steps.append(f"systemctl --root=DIR enable {units}")
    return "\n".join(["next:", *(f"  {step}" for step in steps)])
