"""Compose files on disk: what is refused, how they are decoded, and that a write is whole or did not happen."""

from __future__ import annotations

import codecs
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.compose.document import MAX_BYTES, MAX_DEPTH, parse, walk
from gpualloc.compose.files import lock, read_source, write_atomic
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.errors import GpuallocError
from tests.properties.rewriting import applied, policy, project_of

SERVICES = "services:\n  web:\n    image: busybox\n    gpus: all\n    environment:\n      A: ü🙂\n"
ROOT = Path(__file__).resolve().parents[2]

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")


def refusal(path: Path) -> tuple[str, int | None, int | None]:
    """Return the code and place of the one error that reading a project gives."""
    with pytest.raises(GpuallocError) as caught:
        load_project(ProjectOptions(files=(str(path),)), {}, path.parent)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.hint
    where = diagnostic.where
    return diagnostic.code, where.line if where else None, where.column if where else None


# --------------------------------------------------------------------------------------------------------------------
# What is refused

BOMB = "x-a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"x-{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
CHAIN = "x-0: &a0 {k: 1}\n" + "".join(f"x-{n}: &a{n} {{k: *a{n - 1}}}\n" for n in range(1, 400))
MERGES = "x-0: &a0 {k: 1}\n" + "".join(f"x-{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 400))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", ("compose-empty", 1, 1), id="empty"),
        pytest.param(b"# nothing\n", ("compose-empty", 1, 1), id="only a comment"),
        pytest.param(b"---\n...\n", ("compose-empty", 1, 1), id="an empty document"),
        pytest.param(b"a: b: c\n", ("yaml", 1, 5), id="not YAML"),
        pytest.param(b"services:\n\tweb: {image: i}\n", ("yaml", 2, 1), id="a tab that indents"),
        pytest.param(
            b"services:\n  web:\n    image: i\n\t# note\n    gpus: all\n", ("yaml", 4, 1), id="a tab and a comment"
        ),
        pytest.param(b"services:\n  web: {image: i}\n  web: {image: j}\n", ("yaml-key", 3, 3), id="a key twice"),
        pytest.param(b"services:\n  web:\n    <<: {a: 1}\n    <<: {b: 1}\n", ("yaml-key", 4, 5), id="two merge keys"),
        pytest.param(b"services:\n  ? [a, b]\n  : {image: i}\n", ("yaml-key", 2, 5), id="a list for a key"),
        pytest.param(b"services:\n  web: *none\n", ("yaml-alias", 2, 8), id="an alias of nothing"),
        pytest.param(b"services: &s\n  web: *s\n", ("yaml-alias", 2, 8), id="an alias that contains itself"),
        pytest.param(BOMB.encode(), ("yaml-alias", 7, None), id="an alias bomb"),
        pytest.param(CHAIN.encode(), ("yaml-depth", MAX_DEPTH, None), id="a chain of aliases"),
        pytest.param(MERGES.encode(), ("yaml-depth", MAX_DEPTH, None), id="a chain of merges"),
        pytest.param(b"services: " + b"[" * 500 + b"]" * 500, ("yaml-depth", 1, None), id="deep nesting"),
        pytest.param(b"- a\n- b\n", ("compose-shape", 1, 1), id="a list"),
        pytest.param(b"apiVersion: v1\nkind: Pod\n", ("compose-shape", 1, 1), id="not a compose file"),
        pytest.param(b"services: [a]\n", ("compose-shape", 1, 11), id="services in a list"),
        pytest.param(b"services:\n  web: \xff\n", ("file-encoding", 2, 8), id="not UTF-8"),
        pytest.param(b"\xff\xfes\x00e\x00\x00\xd8", ("file-encoding", None, None), id="not UTF-16"),
        pytest.param(b"services:\n  web: {image: \x01}\n", ("yaml", 2, 16), id="a control character"),
        pytest.param(b"# " + b"x" * 20_000_000 + b"\n" + SERVICES.encode(), ("file-size", None, None), id="20 MB"),
        pytest.param(b"x-gpualloc: {a: 1}\nservices: {}\n", ("record", 1, 1), id="a record that is none"),
        pytest.param(
            b'services: {}\nx-gpualloc: {version: "9", services: {}}\n', ("record", 2, 1), id="a later record"
        ),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, data: bytes, expected: tuple[str, int | None, int | None]) -> None:
    path = tmp_path / "compose.yaml"
    path.write_bytes(data)
    code, line, column = refusal(path)
    assert code == expected[0]
    assert expected[1] in {None, line}
    assert expected[2] in {None, column}


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml")[0] == "file-missing"
    assert refusal(tmp_path)[0] == "file-unreadable"


def test_as_deep_as_is_allowed() -> None:
    depth = MAX_DEPTH - 1
    document = parse("x: " + "[" * depth + "]" * depth + "\n", "compose.yaml")
    assert document.text.count("[") == depth


def test_as_large_as_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_bytes(SERVICES.encode().ljust(MAX_BYTES, b"\n"))
    assert len(read_source(path, "compose.yaml").sha256) == 64
    path.write_bytes(SERVICES.encode().ljust(MAX_BYTES + 1, b"\n"))
    with pytest.raises(GpuallocError, match="8 MiB"):
        read_source(path, "compose.yaml")


def test_tabs_in_comments_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(SERVICES.replace("gpus: all", "gpus: all\t# a\ttab"))
    (new,) = applied(project_of(path), policy(), at_most=1).values()
    assert 'gpus: [{device_ids: ["' in new
    assert '"]}]\t# a\ttab\n' in new


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_error_or_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with suppress(GpuallocError):
        project_of(path)


@given(st.text(st.sampled_from("ab:-?[]{},#&*!|>'\"%@` \n\r\t~<0\u00e9\u2028\x85"), max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_is_an_error_or_a_file(text: str) -> None:
    with suppress(GpuallocError):
        document = parse("services:\n " + text, "compose.yaml")
        spans = [(node.start, node.end) for root in document.roots for node in walk(root)]
        assert all(0 <= start <= end <= len(document.text) for start, end in spans)


# --------------------------------------------------------------------------------------------------------------------
# Encodings


@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encoding_and_line_ending_stay(tmp_path: Path, bom: bytes, encoding: str, newline: str) -> None:
    path = tmp_path / "compose.yaml"
    data = bom + SERVICES.replace("\n", newline).encode(encoding)
    path.write_bytes(data)
    project = project_of(path)
    (file,) = project.files
    (new,) = applied(project, policy()).values()
    path.write_bytes(file.source.encode(new))
    written = path.read_bytes()
    assert written.startswith(bom)
    assert written[len(bom) :].decode(encoding) == new
    assert new.count("\n") == new.count(newline)
    (after,) = project_of(path).files
    assert after.source.encode(after.document.text) == data


# --------------------------------------------------------------------------------------------------------------------
# Writing


def test_mode_and_link_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "real" / "compose.yaml"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "compose.yaml"
    link.symlink_to(target)
    write_atomic(link, b"new", "compose.yaml")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [p.name for p in target.parent.iterdir()] == ["compose.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    write_atomic(path, b"new", "compose.yaml")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_a_new_file_gets_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new.yaml", b"new", "new.yaml")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.yaml").stat().st_mode) == 0o640


def test_a_link_to_nothing_gets_its_target(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").symlink_to("there.yaml")
    write_atomic(tmp_path / "compose.yaml", b"new", "compose.yaml")
    assert (tmp_path / "there.yaml").read_bytes() == b"new"


@needs_user
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_target_is_left(tmp_path: Path, read_only: str) -> None:
    check_read_only(tmp_path, read_only)


def check_read_only(folder: Path, read_only: str) -> None:
    path = folder / "compose.yaml"
    path.write_text("old")
    place, mode = (path, 0o444) if read_only == "file" else (folder, 0o555)
    place.chmod(mode)
    try:
        with pytest.raises(GpuallocError) as caught:
            write_atomic(path, b"new", "compose.yaml")
    finally:
        place.chmod(0o755)
    assert caught.value.diagnostics[0].code == "file-write"
    assert caught.value.diagnostics[0].hint
    assert path.read_text() == "old"
    assert [p.name for p in folder.iterdir()] == ["compose.yaml"]


AS_USER = """
import os, sys
from pathlib import Path
from tests.compose.test_files import check_read_only
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
check_read_only(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the test beside this one runs without another user")
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_target_is_left_by_a_user(read_only: str) -> None:
    # pytest's own folders are closed to other users
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "project"
        folder.mkdir()
        os.chown(folder, 65534, 65534)
        arguments = [sys.executable, "-c", AS_USER, str(folder), read_only]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GpuallocError, match="No space left") as caught:
        write_atomic(path, b"new", "compose.yaml")
    assert caught.value.diagnostics[0].code == "file-write"
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["compose.yaml"]


WRITER = """
import sys
from pathlib import Path
from gpualloc.compose.files import write_atomic
path = Path(sys.argv[1])
texts = [letter.encode() * 300_000 for letter in "ab"]
print("ready", flush=True)
while True:
    for text in texts:
        write_atomic(path, text, "compose.yaml")
"""


def killed_at_random(tmp_path: Path, times: int) -> None:
    """Kill a process that writes without pause, and look at what it left."""
    path = tmp_path / "compose.yaml"
    for number in range(times):
        path.write_bytes(b"a" * 300_000)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.0007 * (number % 23))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
        for left in tmp_path.glob(".compose.yaml.*.tmp"):
            left.unlink()


def test_a_killed_write_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 12)


@pytest.mark.long
def test_a_killed_write_leaves_the_old_file_or_the_new_long(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 300)


# --------------------------------------------------------------------------------------------------------------------
# The lock


HOLDER = """
import sys
from pathlib import Path
from gpualloc.compose.files import lock
with lock(Path(sys.argv[1]), "compose.yaml"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_applies_do_not_interleave(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("old")
    arguments = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(GpuallocError) as caught, lock(path, "compose.yaml"):
            pass
        assert caught.value.diagnostics[0].code == "locked"
        holder.communicate()
    with lock(path, "compose.yaml"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["compose.yaml"]
