"""The `vevents` command. One file per subcommand: it parses, calls the library, prints.

What a subcommand reports goes to standard output, everything else to standard error. Subcommands
are imported only when they run, so that `vevents --help` is there at once on a small board.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import click

from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError, FlushLockedError, VeventsError

# Name and summary, in the order of the help page. The summaries stand here as well as in the
# subcommands' own help because reading them there would import them all.
_COMMANDS = {
    "flush": "Send what is pending to the API.",
    "check": "Try the connection, the key and the use case; send nothing.",
    "pause": "Stop every delivery from the log.",
    "resume": "Let deliveries go on after a pause.",
    "agent": "Deliver for as long as it runs, as a service.",
    "status": "Show what the log holds.",
    "rejected": "Show, retry, export or drop what was refused for good.",
    "restore": "Put a RAM-first log into memory, from its copy on flash.",
    "persist": "Bring the copy of a RAM-first log up to date.",
    "verify": "Read everything and name what is damaged.",
    "recover": "Copy what is good out of a damaged log, or off a failing card.",
    "serve": "Take events over HTTP, as the on-device event store does.",
    "append": "Append events given as JSON lines.",
    "export": "Write what is pending as bundles, to be carried over an air gap.",
    "import": "Take bundles in, from export or from Roboflow's block.",
    "tail": "Print the newest events as JSON lines.",
    "emulate": "Run a local stand-in for the API.",
    "install": "Write the files that run the agent as a service.",
    "uninstall": "Remove the files that install wrote.",
    "demo": "Show the whole way, from photographs through an outage to the API.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"vevents.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from vevents import __version__

        click.echo(f"vevents {__version__}")
        ctx.exit()


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Exit codes:
  0    done; for flush: all that was pending is delivered
  1    unexpected error, or the log's disk failed
  2    wrong usage, or a setting is missing or wrong
  3    the API is not reachable, overloaded or failing; nothing is lost, try later
  4    the API does not accept the key
  5    some events were refused and set aside (flush), or not written (append, import)
  6    another flush, or another agent, of the same log is running
  7    a limit was reached (--timeout, --max-events, --max-bytes), or import filled the
       log; events are left
  8    verify, recover: some records are damaged, the others are good
  9    verify, recover: a file is no ring, or cannot be read
  10   not now: delivery is paused, or it is outside the time windows
  11   status --check: something needs attention
  130  interrupted with Ctrl-C (129: by SIGHUP, 143: by SIGTERM); nothing is lost
""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def group() -> None:
    """A crash-safe log of vision events on the device, and its way to the cloud."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `vevents`; the process's own if None.

    Returns:
        The exit code; see `ExitCode`.
    """
    _open_standard_streams()
    logger = logging.getLogger("vevents")
    handlers, level = logger.handlers[:], logger.level
    try:
        code = group.main(arguments, prog_name="vevents", standalone_mode=False)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except ConfigurationError as error:
        return _fail(error, ExitCode.USAGE)
    except FlushLockedError as error:
        return _fail(error, ExitCode.LOCKED)
    except (VeventsError, OSError) as error:
        return _fail(error, ExitCode.ERROR)
    except Exception as error:
        logger.debug("unexpected error", exc_info=True)
        return _fail(f"unexpected error: {type(error).__name__}: {error}", ExitCode.ERROR)
    finally:
        # A subcommand sets up its messages; who calls this from a program has some of their own.
        logger.handlers[:] = handlers
        logger.setLevel(level)
    return int(code or 0)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed.

    Else a file of the log is opened in its place, and whatever prints there writes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _fail(error: object, code: ExitCode) -> int:
    print(f"vevents: {error}", file=sys.stderr)
    return code
