"""Command blocks of Markdown pages: found, run with their output compared, or, where they need Docker or a GPU, parsed.

A page is one session in a folder of its own. Comments before a block, which readers do not see, say more:

- ``<!-- file: NAME -->``: the block is the text of that file;
- ``<!-- example: NAME -->``: from here on, in a copy of ``examples/NAME``; ``<!-- new folder -->``: in an empty one;
- ``<!-- exit: N -->``: the block's last command exits with N, not 0;
- ``<!-- not run -->``: the commands are only parsed.

A line ``…`` in an expected output stands for any lines. ``UPDATE_DOCS=1`` writes the outputs anew.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpualloc.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SHELL = frozenset({"console", "sh", "bash", "shell"})

_BLOCK = re.compile(
    r"(?P<marks>(?:<!--[^>]*-->[ ]*\n+)*)^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!--\s*([a-z ]+?)\s*(?::\s*(.*?))?\s*-->")

_FREE = frozenset({"cat", "ls", "cp", "diff", "grep", "head", "tail", "sed", "echo", "mkdir", "rm", "wc", "true"})
"""Programs that a page may run."""

_NO_MACHINE = frozenset({"policy", "explain", "schema", "reset", "--help", "-h", "--version"})
"""Commands of gpualloc that look at no GPU."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it stands, its language and text, what the comments before it say, its span in the page."""

    page: Path
    line: int
    language: str
    body: str
    marks: dict[str, str] = field(default_factory=dict)
    span: tuple[int, int] = (0, 0)

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands with their expected outputs; in a block without prompts every line is a command."""
        if self.language != "console":
            lines = [line for line in self.body.replace("\\\n", "").splitlines() if line.strip()]
            return [(line, "") for line in lines if not line.lstrip().startswith("#")]
        found: list[tuple[str, str]] = []
        more = False
        for line in self.body.splitlines(keepends=True):
            if line.startswith("$ "):
                found.append((line[2:].rstrip("\n"), ""))
            elif more:
                found[-1] = (f"{found[-1][0].removesuffix(chr(92))}{line.strip()}", "")
            else:
                assert found, f"{self}: a console block begins with a $"
                found[-1] = (found[-1][0], found[-1][1] + line)
            more = not found[-1][1] and found[-1][0].endswith("\\")
        return found

    @property
    def runs(self) -> bool:
        """Whether a test may run it: it needs neither Docker nor a GPU, and changes nothing outside its folder."""
        return "not run" not in self.marks and all(_free(command) for command, _ in self.commands)

    def __str__(self) -> str:
        """Name it as a place in a file."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        body = re.sub(rf"^ {{0,{indent}}}", "", match["body"], flags=re.MULTILINE)
        marks = {name: value or "" for name, value in _MARK.findall(match["marks"])}
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(page, line, match["language"], body, marks, match.span("body"))


def _parts(command: str) -> list[list[str]]:
    """Return the words of each program that a command line starts."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word[0] in "|&;()":
            parts.append([])
        elif word[0] in "<>":
            parts.append([">"])  # a file's name follows
        else:
            parts[-1].append(word)
    return [part for part in parts if part and part[0] != ">"]


def _free(command: str) -> bool:
    return all(_free_part(part) for part in _parts(command))


def _free_part(words: list[str]) -> bool:
    if words[0] != "gpualloc":
        return words[0] in _FREE
    if {"--help", "-h", "--list"} & set(words) or (len(words) > 1 and words[1] in _NO_MACHINE):
        return words[1:2] != ["reset"] or "-y" in words
    sources = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--inventory"]
    asks = words[1:2] == ["apply"] and "-y" not in words
    return bool(sources) and "nvml" not in sources and not asks and words[1] not in {"verify", "watch", "usage"}


def check_parses(block: Block) -> None:
    """Fail unless the shell can read a block, and gpualloc every command of its own in it."""
    bash = shutil.which("bash")
    if bash is not None:
        script = "\n".join(command for command, _ in block.commands)
        done = subprocess.run([bash, "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}: {done.stderr}"
    for command, _ in block.commands:
        for words in _parts(command.split(" # ")[0]):
            if words[0] == "gpualloc":
                _check_words(words[1:], f"{block}: {command}")


def _check_words(words: list[str], where: str) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group):
        if not words or words[0] in {"--help", "-h", "--version"}:
            return
        assert words[0] in command.commands, f"{where}: no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if {"--help", "-h"} & set(words):
        return
    try:
        command.make_context(command.name or "", list(words))
    except click.ClickException as error:
        raise AssertionError(f"{where}: {error.format_message()}") from None


class Session:
    """A folder in which the blocks of one page are run, one after the other."""

    def __init__(self, folder: Path, example: str | None = None) -> None:
        """Take a folder that is empty; ``example``: begin in a copy of that one."""
        self._folder = folder
        self._number = 0
        self._cwd = folder
        self._programs = folder / "programs"
        self._programs.mkdir()
        program = self._programs / "gpualloc"
        program.write_text(f"#!{sys.executable}\nfrom gpualloc.cli import main\nmain()\n")
        program.chmod(0o755)
        self._go(example)

    def _go(self, example: str | None) -> None:
        self._number += 1
        self._cwd = self._folder / str(self._number) / (example or "project")
        if example is None:
            self._cwd.mkdir(parents=True)
        else:
            shutil.copytree(ROOT / "examples" / example, self._cwd)

    def take(self, block: Block) -> str | None:
        """Do what a block says; return its text with the outputs as they are, or None where nothing was run."""
        if "new folder" in block.marks or "example" in block.marks:
            self._go(block.marks.get("example"))
        if "file" in block.marks:
            path = self._cwd / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
            return None
        if block.language not in SHELL:
            return None
        check_parses(block)
        if not block.runs:
            return None
        text, code = "", 0
        for command, expected in block.commands:
            assert code == 0, f"{block}: exit code {code} before {command}"
            code, output = self._run(command)
            text += f"$ {command}\n{expected if _matches(expected, output) else output}"
        wanted = int(block.marks.get("exit", "0"))
        assert code == wanted, f"{block}: exit code {code}, not {wanted}:\n{text}"
        return text if block.language == "console" else None

    def _run(self, command: str) -> tuple[int, str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("COMPOSE_", "GPUALLOC_"))}
        environment |= {"PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


def _matches(expected: str, output: str) -> bool:
    """Whether an output is the expected one, a line ``…`` standing for any lines, and blank ends not counted."""
    parts = [re.escape(part) for part in re.split(r"(?m)^…\n", _ends(expected))]
    return re.fullmatch(r"(?:.*\n)*?".join(parts), _ends(output)) is not None


def _ends(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())
