"""`vevents recover`: copy what is good out of a damaged log, or off a failing card."""

from __future__ import annotations

import errno
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import click

from vevents.cli.common import STREAMS, say
from vevents.cli.exit_codes import ExitCode
from vevents.cli.verify import as_json_object, look, show
from vevents.errors import ConfigurationError
from vevents.files import replaced

# One unreadable sector costs no more than this.
_BLOCK = 4096
_CHUNK = 1 << 20


@click.command(name="recover")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--into",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the new log; must not hold one.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(source: Path, into: Path, as_json: bool) -> int:
    """Copy what is good out of a damaged log, or off a failing card.

    SOURCE is the log's directory. It is only read, and blocks that cannot be read are left out.
    It may also be the directory of a RAM-first log's copy, from a card pulled out of its device.
    Ids, times and delivery states are kept, so the new log can be flushed like any other. Exit
    code 0: everything was good. 8: some records are lost. 9: a file was no ring, or is missing;
    the others were recovered.
    """
    from vevents.log import READABLE, EventLog

    names = [f"{stream}.ring" for stream in STREAMS]
    sources = {
        name: path
        for name in names
        for path in ((source / name).with_suffix(".copy"), source / name)
        if path.is_file()
    }
    present = [name for name in names if name in sources]
    if not present:
        raise ConfigurationError(f"{source}: no log here ({', '.join(names)})")
    if any((into / name).exists() for name in names):
        raise ConfigurationError(f"{into}: there is a log already")
    into.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:  # all of them, or none
        unreadable = {
            name: _copy(sources[name], stack.enter_context(replaced(into / name, binary=True)))
            for name in present
        }
    with EventLog(into) as log:
        found = look(log)
        aside = [stream for stream in STREAMS if log.stats(stream).set_aside]
        # Reading marks what is lost, so that the new log's figures say so from the start.
        for stream in STREAMS:
            for _ in log.read(stream, states=READABLE):
                pass
        lost = {stream: log.stats(stream).lost for stream in STREAMS}
    missing = [name for name in names if name not in present]
    if as_json:
        report = {
            "unreadable_bytes": unreadable,
            "no_ring": aside,
            "missing": missing,
            "lost": lost,
            "streams": as_json_object(found),
        }
        say(json.dumps(report))
    else:
        show(found)
        for name, size in unreadable.items():
            if size:
                say(f"{name}: {size} bytes could not be read")
        for stream in aside:
            say(f"{stream}.ring is no ring any more; kept as {stream}.ring.damaged-1")
        for name in missing:
            say(f"{name} is missing")
    if aside or missing:
        return ExitCode.UNUSABLE
    return ExitCode.DAMAGED if any(lost.values()) or any(unreadable.values()) else ExitCode.OK


def _copy(source: Path, target: IO[bytes]) -> int:
    """Copy a file, zeros in place of what cannot be read. Returns how many bytes that are."""
    unreadable = 0
    reader = os.open(source, os.O_RDONLY)
    try:
        size = os.fstat(reader).st_size
        writer = target.fileno()
        os.posix_fallocate(writer, 0, max(size, 1))
        os.truncate(writer, size)
        for offset in range(0, size, _CHUNK):
            unreadable += _copy_chunk(reader, writer, offset, min(_CHUNK, size - offset))
    finally:
        os.close(reader)
    return unreadable


def _copy_chunk(reader: int, writer: int, offset: int, size: int) -> int:
    """Copy one chunk; when it cannot be read, block by block. Returns the bytes left out."""
    try:
        data = os.pread(reader, size, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if size <= _BLOCK:
            return size
        return sum(
            _copy_chunk(reader, writer, at, min(_BLOCK, offset + size - at))
            for at in range(offset, offset + size, _BLOCK)
        )
    # Zeros are there already; not writing them keeps unused segments unwritten.
    if data.count(0) != len(data):
        os.pwrite(writer, data, offset)
    return 0
