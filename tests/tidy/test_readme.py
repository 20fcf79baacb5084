"""The commands, files and links that the documents name are there."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from house import ROOT, project_files

DOCUMENTS = [path for path in project_files() if path.suffix == ".md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^```(?:sh|bash|console|shell)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# An indented block may be anything; a line of it that runs one of our programs is a command, up to
# the gap before its explanation.
_INDENTED = re.compile(
    r"^ {4}((?:\$ )?(?:[A-Z_]+=\S+ )*(?:\./dev|\.ci/run|vevents)(?: \S+)*)(?: {2,}.*)?$",
    re.MULTILINE,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
# What a document may take for granted on a Linux machine.
_GIVEN = {
    "apt-get",
    "cat",
    "cc",
    "cd",
    "cp",
    "curl",
    "echo",
    "export",
    "gcc",
    "git",
    "kill",
    "ls",
    "meson",
    "mv",
    "ninja",
    "pip",
    "pkg-config",
    "pytest",
    "python",
    "python3",
    "rm",
    "ruff",
    "mypy",
    "sudo",
}


def command_lines(text: str) -> list[str]:
    """Return the commands of a document's shell blocks, continuation lines joined."""
    lines = []
    indented = "\n".join(_INDENTED.findall(_FENCED.sub("", text)))
    for block in [*_BLOCK.findall(text), indented]:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line and not line.startswith("#"):
                lines.append(line)
    return lines


def words_of(line: str) -> list[list[str]]:
    """Return the words of each command of a line; pipes and `&&` separate commands."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;()"):
            commands.append([])
        else:
            commands[-1].append(word)
    # VAR=value in front of a command is not the command.
    stripped = [
        words[next((i for i, w in enumerate(words) if "=" not in w), len(words)) :]
        for words in commands
    ]
    return [words for words in stripped if words]


def dev_commands() -> set[str]:
    """Return the sub commands that ./dev knows, as its help lists them."""
    shown = subprocess.run(
        [ROOT / "dev", "help"], check=True, capture_output=True, text=True
    ).stdout
    return set(re.findall(r"^\./dev (\S+)", shown, re.MULTILINE)) | {"help"}


def vevents_commands() -> set[str]:
    """Return the sub commands of the `vevents` program."""
    import click

    from vevents.cli import group

    return set(group.list_commands(click.Context(group)))


def _all_lines():
    return [
        pytest.param(line, id=f"{path.relative_to(ROOT)}: {line[:50]}")
        for path in DOCUMENTS
        for line in command_lines(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("line", _all_lines())
def test_every_command_in_a_document_exists(line):
    for words in words_of(line):
        program, arguments = words[0], words[1:]
        if program == "./dev":
            assert arguments, line
            assert arguments[0] in dev_commands()
        elif program == "vevents":
            named = [word for word in arguments if not word.startswith("-")]
            assert not named or named[0] in vevents_commands()
        elif "/" in program:
            assert (ROOT / program).exists() or program.startswith((".venv/", "build/")), line
        else:
            assert program in _GIVEN, f"{program!r} is no command that a reader can be sure of"
        for option in _options(words):
            assert option in _known_options(program, arguments), f"{line}: {option}"


def _options(words: list[str]) -> list[str]:
    if words[0] not in ("./dev", "vevents"):
        return []
    return [word.partition("=")[0] for word in words[1:] if word.startswith("--")]


def _known_options(program: str, arguments: list[str]) -> set[str]:
    import click

    from vevents.cli import group

    if program == "./dev" and arguments[0] != "demo":
        pytest.skip("options of pytest")
    named = [word for word in arguments if not word.startswith("-")]
    command: click.Command = group
    parameters = [*group.params]
    for name in named:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{command.name} has no command {name}"
        command = found
        parameters += command.params
    options = {name for one in parameters for name in [*one.opts, *one.secondary_opts]}
    return options | {"--help"}


def test_the_readme_shows_the_two_commands():
    programs = [words[:2] for line in command_lines(README) for words in words_of(line)]

    assert ["./dev", "demo"] in programs
    assert ["./dev", "test"] in programs


def test_the_continuous_check_runs_the_readmes_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert re.search(r"^\./dev demo ", script, re.MULTILINE)
    # pytest's closing line is to be the last one printed.
    assert script.rstrip().endswith("\n./dev test")


def test_every_command_of_dev_is_in_its_help_and_the_other_way_round():
    script = (ROOT / "dev").read_text(encoding="utf-8")
    _, _, cases = script.rpartition("case $command in")
    handled = set(re.findall(r"^    ([a-z][a-z-]*)(?:\)| \|)", cases, re.MULTILINE))

    assert handled == dev_commands()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(path):
    for target in _LINK.findall(path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_commands_of_a_line_are_taken_apart():
    assert words_of("A=1 ./dev demo --events 5 | head && cd x") == [
        ["./dev", "demo", "--events", "5"],
        ["head"],
        ["cd", "x"],
    ]
    assert command_lines("Do:\n\n    ./dev demo  # see\n\n    a -> vevents -> b\n") == [
        "./dev demo"
    ]
    assert words_of("./dev demo  # see") == [["./dev", "demo"]]
    assert command_lines("```sh\n# why\n$ ./dev test \\\n  -x\n```\n") == ["./dev test    -x"]
