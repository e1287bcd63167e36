"""Env files, beside the real Compose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.compose import interpolate as substitution
from gpualloc.compose.dotenv import load_environment, parse
from gpualloc.errors import GpuallocError, Place, fail
from tests.compose_oracle import config, fails_in_old_compose, needs_compose, run
from tests.long_runs import share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENV = {"A": "va", "E": "", "D": "$A"}
"""U, and every name not here, is not set."""

CASES: dict[str, dict[str, str]] = {
    "": {},
    "# only a comment": {},
    "\n\n  # c\nX=1\n  Y=2\n": {"X": "1", "Y": "2"},
    "X=1\nX=2": {"X": "2"},
    # names
    "X = 1\nY: 2\nZ : 3\nV=a: b\nW: a=b\n": {"X": "1", "Y": "2", "Z": "3", "V": "a: b", "W": "a=b"},
    "X-Y=1\nX.Y=2\nX[0]=3\n1X=4\n": {"X-Y": "1", "X.Y": "2", "X[0]": "3", "1X": "4"},
    "É=1\n": {"É": "1"},
    "A\tB=1\n": {"A\tB": "1"},
    "=1\n": {"": "1"},
    # export
    "export X=1\nexport\tY=2\nexport  Z=3\n": {"X": "1", "Y": "2", "Z": "3"},
    "exportX=1\n": {"exportX": "1"},
    "export\nX=1\n": {"X": "1"},
    "export\nexport X=1\n": {"X": "1"},
    "export=1\n": {"export": "1"},
    "export A\n": {"A": "va"},
    # without a value
    "A\nU\nE\nD\n": {"A": "va", "E": "", "D": "$A"},
    "A \n": {"A": "va"},
    "A": {"": "A"},
    "A B": {"": "A B"},
    "export A": {"": "A"},
    "export": {"": "export"},
    "X=": {"X": ""},
    "X=\nY=1": {"X": "", "Y": "1"},
    "X=\"\"\nY=''\n": {"X": "", "Y": ""},
    # unquoted
    "X=   a   b   \n": {"X": "a   b"},
    "X=a #c\nY=a#c\nZ=a\t#c\n": {"X": "a", "Y": "a#c", "Z": "a\t#c"},
    "X=a # b # c\n": {"X": "a"},
    "X= # c\nY=#c\n": {"X": "# c", "Y": "#c"},
    "X=a'b'\nY=a\"b\nZ=`a`\n": {"X": "a'b'", "Y": 'a"b', "Z": "`a`"},
    "X=a\\nb\nY=a\\ b\nZ=~\nV=$(ls)\n": {"X": "a\\nb", "Y": "a\\ b", "Z": "~", "V": "$(ls)"},
    "X=1\rY=2\n": {"X": "1\rY=2"},
    # space as Go sees it
    "X=\u00a0a\u00a0\n\u2003Y=\u2003b\u2003\n": {"X": "a", "Y": "\u2003b"},
    "X=1\x1c\n": {"X": "1\x1c"},
    # variables
    "X=$A ${A}\nY=${U:-d}\nZ=$$A\nV=$U\nW=$D": {"X": "va va", "Y": "d", "Z": "$A", "V": "", "W": "$A"},
    "Y=1\nX=$Y$Z\nZ=2": {"Y": "1", "X": "1", "Z": "2"},
    "A=1\nX=$A": {"A": "1", "X": "va"},
    "E=1\nX=${E:-d}": {"E": "1", "X": "d"},
    # single quotes
    "X='$A'\nY='a\\nb'\nZ='a\\'b'\nV='a\\\\'": {"X": "$A", "Y": "a\\nb", "Z": "a'b", "V": "a\\\\"},
    "X='a\nb' # c\nY=1": {"X": "a\nb", "Y": "1"},
    # double quotes
    'X="$A \\$A $$A"\nY="\\\\$A"': {"X": "va $A $A", "Y": "\\va"},
    'X="a\\nb\\t\\"q\\"\\a\\b\\f\\r\\v"': {"X": 'a\nb\t"q"\a\b\f\r\v'},
    'X="\\\\n \\\\\\\\"': {"X": "\\n \\\\"},
    'X="\\c \\x41 \\\' \\q"': {"X": "\\c \\x41 \\' \\q"},
    'X="\\0101 \\0377 \\01011"': {"X": "A ÿ A1"},
    'X="\\0777 \\0 \\01 \\012 \\0189"': {"X": "\\777 \\ \\1 \\12 \\189"},
    'X="a\\\nb"': {"X": "a\\\nb"},
    'X="a\r\nb"\r\nY=1\r\n': {"X": "a\r\nb", "Y": "1"},
    'X="a # b" # c': {"X": "a # b"},
    # what follows a closing quote is the next entry
    "X='a'b=2\nY=\"c\" export Z=3": {"X": "a", "b": "2", "Y": "c", "Z": "3"},
    'X="a"#c\nY=1': {"X": "a", "Y": "1"},
    # byte order mark
    "\ufeffX=1\r\nA\r\n": {"X": "1", "A": "va"},
}

# text, code, line and column
ERRORS: dict[str, tuple[str, int, int]] = {
    "X=1\n\nY!=1\n": ("env-file-syntax", 3, 2),
    "X!": ("env-file-syntax", 1, 2),
    "A B=1\n": ("env-file-syntax", 1, 1),
    "A B\n": ("env-file-syntax", 1, 1),
    "export ": ("env-file-syntax", 1, 8),
    "X=1\n\ufeffY=1\n": ("env-file-syntax", 2, 1),
    "X=1\n\x1cY=1\n": ("env-file-syntax", 2, 1),
    "X='a' 'b'\n": ("env-file-syntax", 1, 7),
    "X=1\nY='abc\nZ=1\n": ("env-file-syntax", 2, 3),
    'X="abc\n': ("env-file-syntax", 1, 3),
    'X="\\"': ("env-file-syntax", 1, 3),
    "X=1\n Y=${\n": ("invalid-interpolation", 2, 4),
    'X="a\nb${"\n': ("invalid-interpolation", 1, 3),
    "X=${U:?no}\n": ("required-variable", 1, 3),
    "-----BEGIN KEY-----\nab/c==\n": ("env-file-syntax", 1, 1),
}


def ask(texts: Sequence[str], folder: Path) -> list[dict[str, str]] | None:
    """Return what Compose reads from each text as a service's env file, None where it fails."""
    services: dict[str, Any] = {}
    for number, text in enumerate(texts):
        (folder / f"{number}.env").write_bytes(text.encode())
        services[f"s{number}"] = {"image": "x", "env_file": [f"{number}.env"]}
    file = folder / "compose.yaml"
    file.write_text(json.dumps({"name": "p", "services": services}))
    result = config([file], env=ENV)
    return [result.data["services"][name].get("environment") or {} for name in services] if result.ok else None


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_value(text: str, expected: dict[str, str]) -> None:
    assert parse(text, ENV.get) == expected


@pytest.mark.parametrize(("text", "error"), ERRORS.items())
def test_error(text: str, error: tuple[str, int, int]) -> None:
    with pytest.raises(GpuallocError) as caught:
        parse(text, ENV.get, file="some.env")
    (diagnostic,) = caught.value.diagnostics
    code, line, column = error
    assert (diagnostic.code, diagnostic.where) == (code, Place("some.env", line, column))
    assert diagnostic.hint


@needs_compose
def test_compose_reads_the_same(tmp_path: Path) -> None:
    assert ask(list(CASES), tmp_path) == list(CASES.values())


@needs_compose
@pytest.mark.parametrize("text", ERRORS)
def test_compose_fails_too(text: str, tmp_path: Path) -> None:
    assert ask([text], tmp_path) is None


def test_unset_variables_are_named() -> None:
    unset: set[str] = set()
    parse("X=$A $U $X\nU\nY='$Z'\n", ENV.get, unset=unset)
    assert unset == {"U", "X"}


def test_bytes_that_are_not_utf8_pass_through(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"X=\xff\n")
    assert load_environment(tmp_path, None, {})["X"].encode("utf-8", "surrogateescape") == b"\xff"


def test_a_large_file() -> None:
    text = "".join(f'N{number}=1 # c\nM{number}="two\\n" # c\n' for number in range(20_000))
    assert len(parse(text, ENV.get)) == 40_000


VALUES = ["a", " ", "$A", "${E}", "$U", "$X", "${Y:-d}", "$$", "#", " #", "é"]
VALUES += ["\\", "\\n", '\\"', "\\'", "\\$", "\\0101"]
LINES = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["", "", "export ", " ", "export\t"]),
    st.sampled_from(["A", "E", "U", "X", "Y", "X.1"]),
    st.sampled_from(["=", "=", "=", ": ", " = ", ""]),
    st.builds(
        lambda quote, parts: f"{quote}{''.join(parts)}{quote}",
        st.sampled_from(["", "", "'", '"']),
        st.lists(st.sampled_from(VALUES), max_size=6),
    ),
    st.sampled_from(["", "", " # c", "#c", " ", "\t# c"]),
    st.sampled_from(["\n", "\n", "\r\n", "\n\n", ""]),
)
PIECES = [*VALUES, "A", "E", "U", "X", "=", ":", "\n", "\r\n", "\t", "'", '"', "n", "$", "${", "}", ":-", "-"]
PIECES += ["export", "\\0", "1", "377", "\u00a0", "\u2003", "\x1c", "\ufeff", "!", "[", "\v"]
FILES = st.one_of(
    st.lists(LINES, max_size=5).map("".join),
    st.lists(LINES, max_size=5).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)


def parse_like_old_compose(text: str) -> dict[str, str] | None:
    """Return what ``parse`` gives, None where it fails, with every operand looked at, needed or not."""

    def strict(value: str, lookup: substitution.Lookup, **_: Any) -> str:
        if fails_in_old_compose(value, lookup):
            raise fail("invalid-interpolation", value)
        return substitution.interpolate(value, lookup)

    with patch("gpualloc.compose.dotenv.interpolate", strict):
        try:
            return parse(text, ENV.get)
        except GpuallocError:
            return None


def same_as_compose(texts: list[str], folder: Path, most_errors: int) -> None:
    expected = {text: parse_like_old_compose(text) for text in texts}
    good = {text: values for text, values in expected.items() if values is not None}
    assert {text: parse(text, ENV.get) for text in good} == good
    got = ask(list(good), folder)
    if got is None:
        singles = {text: ask([text], folder) for text in good}
        assert {text: [values] for text, values in good.items()} == singles
    else:
        assert good == dict(zip(good, got, strict=True))
    for text in [text for text, values in expected.items() if values is None][:most_errors]:
        assert ask([text], folder) is None, text


@needs_compose
@settings(max_examples=25, deadline=None)
@given(st.lists(FILES, min_size=1, max_size=40))
def test_compose_agrees(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    same_as_compose(texts, tmp_path_factory.mktemp("p"), 3)


@needs_compose
@pytest.mark.long
@settings(max_examples=share(400), deadline=None)
@given(st.lists(FILES, min_size=1, max_size=40))
def test_compose_agrees_on_many(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    same_as_compose(texts, tmp_path_factory.mktemp("p"), 10)


# the files, the environment, the env files given; what comes of it besides the environment, or an error's code
SCENARIOS: dict[str, tuple[dict[str, str], dict[str, str], list[str], dict[str, str] | str]] = {
    "no file": ({}, {"X": "1"}, [], {"X": "1"}),
    "the project's .env": ({"sub/.env": "X=1\nY=$X$Z\n"}, {"Z": "z"}, [], {"X": "1", "Y": "1z", "Z": "z"}),
    "the environment wins": ({"sub/.env": "X=1\nY=$X\n"}, {"X": "2"}, [], {"X": "2", "Y": "2"}),
    "an empty value wins too": ({"sub/.env": "X=1\nY=$X\n"}, {"X": ""}, [], {"X": "", "Y": ""}),
    "an empty value in the file": ({"sub/.env": "X=\n"}, {}, [], {"X": ""}),
    "a .env that is a directory": ({"sub/.env/x": ""}, {}, [], {}),
    "files given replace .env": ({"sub/.env": "X=1\n", "one.env": "Y=2\n"}, {}, ["one.env"], {"Y": "2"}),
    "later files win": (
        {"one.env": "X=1\nY=1\n", "two.env": "X=2\n"},
        {},
        ["one.env", "two.env"],
        {"X": "2", "Y": "1"},
    ),
    "a file sees those before it": (
        {"one.env": "X=1\n", "two.env": "Y=$X\nX=2\nZ=$X\nX\n"},
        {},
        ["one.env", "two.env"],
        {"X": "2", "Y": "1", "Z": "2"},
    ),
    "a missing file": ({}, {}, ["one.env"], "env-file-missing"),
    "a directory": ({}, {}, ["sub"], "env-file-unreadable"),
    "a file with an error": ({"sub/.env": "X\n!\n"}, {}, [], "env-file-syntax"),
    "COMPOSE_ENV_FILES": (
        {"sub/.env": "Z=3\n", "one.env": "X=1\n", "two.env": "X=2\n"},
        {"COMPOSE_ENV_FILES": "one.env,,two.env,"},
        [],
        {"X": "2"},
    ),
    "COMPOSE_ENV_FILES empty": ({"sub/.env": "Z=3\n"}, {"COMPOSE_ENV_FILES": ","}, [], {"Z": "3"}),
    "COMPOSE_ENV_FILES with a space": (
        {"one.env": "X=1\n", "two.env": "X=2\n"},
        {"COMPOSE_ENV_FILES": "one.env, two.env"},
        [],
        "env-file-missing",
    ),
    "COMPOSE_ENV_FILES and files given": (
        {"one.env": "X=1\n", "two.env": "Y=2\n"},
        {"COMPOSE_ENV_FILES": "one.env"},
        ["two.env"],
        {"Y": "2"},
    ),
    "COMPOSE_DISABLE_ENV_FILE": ({"sub/.env": "X=1\n"}, {"COMPOSE_DISABLE_ENV_FILE": "T"}, [], {}),
    "COMPOSE_DISABLE_ENV_FILE false": ({"sub/.env": "X=1\n"}, {"COMPOSE_DISABLE_ENV_FILE": "0"}, [], {"X": "1"}),
    "COMPOSE_DISABLE_ENV_FILE and files given": (
        {"one.env": "X=1\n"},
        {"COMPOSE_DISABLE_ENV_FILE": "1"},
        ["one.env"],
        {"X": "1"},
    ),
    "COMPOSE_DISABLE_ENV_FILE empty": ({}, {"COMPOSE_DISABLE_ENV_FILE": ""}, [], "env-file-disable"),
    "COMPOSE_DISABLE_ENV_FILE yes": ({}, {"COMPOSE_DISABLE_ENV_FILE": "yes"}, [], "env-file-disable"),
}


@pytest.mark.parametrize(("files", "environ", "env_files", "expected"), SCENARIOS.values(), ids=SCENARIOS)
def test_load_environment(
    files: dict[str, str],
    environ: dict[str, str],
    env_files: list[str],
    expected: dict[str, str] | str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_project(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    given_files = [tmp_path / name for name in env_files]
    if isinstance(expected, str):
        with pytest.raises(GpuallocError) as caught:
            load_environment(tmp_path / "sub", given_files, environ)
        assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [expected]
    else:
        assert load_environment(tmp_path / "sub", given_files or None, environ) == {**environ, **expected}


@needs_compose
@pytest.mark.parametrize(("files", "environ", "env_files", "expected"), SCENARIOS.values(), ids=SCENARIOS)
def test_compose_loads_the_same_environment(
    files: dict[str, str],
    environ: dict[str, str],
    env_files: list[str],
    expected: dict[str, str] | str,
    tmp_path: Path,
) -> None:
    write_project(tmp_path, files)
    given_files = [word for name in env_files for word in ("--env-file", name)]
    done = run(["-f", "sub/compose.yaml", *given_files, "config", "--environment"], env=environ, cwd=tmp_path)
    if isinstance(expected, str):
        assert done.returncode
        return
    assert not done.returncode, done.stderr
    got = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert {key: got[key] for key in got if key in "XYZ" or key.startswith("COMPOSE_")} == {
        **environ,
        **expected,
        "COMPOSE_PROJECT_NAME": "p",
    }


def write_project(folder: Path, files: dict[str, str]) -> None:
    for name, text in {"sub/compose.yaml": "{name: p, services: {s: {image: x}}}", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@needs_compose
def test_the_working_directorys_env_file_goes_first(tmp_path: Path) -> None:
    write_project(tmp_path, {".env": "COMPOSE_FILE=sub/compose.yaml\nX=here\n", "sub/.env": "X=there\nY=$X\n"})
    first = load_environment(tmp_path, None, {})
    ours = load_environment(tmp_path / "sub", None, first)
    done = run(["config", "--environment"], cwd=tmp_path)
    got = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert {key: got[key] for key in ours} == ours == {"COMPOSE_FILE": "sub/compose.yaml", "X": "here", "Y": "here"}
