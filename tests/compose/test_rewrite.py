"""What happens to a rewritten file besides edits by hand: tools, line endings, lost anchors, damaged records."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gpualloc.compose.document import parse
from gpualloc.compose.restore import restore
from gpualloc.errors import GpuallocError
from gpualloc.model import Ask, GpuCount
from tests.properties.rewriting import applied, policy, project_of

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.model import Policy

SHARED = """x-gpu: &gpu
  resources:
    reservations:
      devices:
        - driver: nvidia
          count: 1
          capabilities: [gpu]
services:
  web:
    image: busybox
    deploy: *gpu
    environment:
      A: "1"
  worker:
    image: busybox
    deploy: *gpu
"""
PINNED = """services:
  web:
    image: busybox
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              # both of them
              device_ids:
                - "0"
                - "1"
              capabilities: [gpu]
"""


def rewritten(folder: Path, text: str, by: Policy | None = None) -> str:
    path = folder / "compose.yaml"
    path.write_bytes(text.encode())
    (new,) = applied(project_of(path), by or policy(), at_most=1).values()
    return new


def original(text: str) -> str:
    return restore(parse(text, "compose.yaml"))[0].text


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(GpuallocError) as caught:
        rewritten(folder, text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.where
    assert diagnostic.hint
    return diagnostic.code


@pytest.mark.parametrize("text", [SHARED, PINNED])
@pytest.mark.parametrize(("before", "after"), [("\n", "\r\n"), ("\r\n", "\n")])
def test_line_endings_changed_in_between(tmp_path: Path, text: str, before: str, after: str) -> None:
    new = rewritten(tmp_path, text.replace("\n", before))
    assert original(new.replace(before, after)) == text.replace("\n", after)


def test_a_formatter_ran_in_between(tmp_path: Path) -> None:
    new = rewritten(tmp_path, SHARED)
    formatted = new.replace('"', "'").replace("{", "{ ").replace("}", " }").replace("      A:", "      A:  ")
    restored = original(formatted)
    assert restored.replace("'", '"').replace("A:   ", "A: ") == SHARED


def test_a_final_newline_was_added_in_between(tmp_path: Path) -> None:
    text = SHARED.rstrip("\n")
    assert original(rewritten(tmp_path, text) + "\n") == text + "\n"


def test_the_record_was_moved(tmp_path: Path) -> None:
    new = rewritten(tmp_path, SHARED)
    start = new.index("x-gpualloc:")
    assert original(new[start:] + new[:start]) == SHARED


def test_a_change_to_the_shared_block_reaches_those_that_got_a_copy(tmp_path: Path) -> None:
    new = rewritten(tmp_path, SHARED)
    changed = new.replace("          count: 1\n", "          count: 2\n", 1)
    assert original(changed) == SHARED.replace("count: 1", "count: 2")


def test_a_copy_that_people_changed_stays_theirs(tmp_path: Path) -> None:
    new = rewritten(tmp_path, SHARED)
    own = new.replace("              capabilities: [gpu]\n", "              capabilities: [gpu, video]\n", 1)
    assert own != new
    restored = original(own)
    assert "capabilities: [gpu, video]" in restored
    assert restored.count("deploy: *gpu") == 1
    assert rewritten(tmp_path, rewritten(tmp_path, own)) == rewritten(tmp_path, own)


def test_a_copy_stays_when_its_anchor_is_gone(tmp_path: Path) -> None:
    new = rewritten(tmp_path, SHARED)
    without = new[new.index("services:") :]
    restored = original(without)
    assert restored.count("count: 1") == 2
    assert "*gpu" not in restored


def test_recorded_text_whose_anchor_is_gone_stays_out(tmp_path: Path) -> None:
    text = """services:
  db:
    image: postgres
    labels:
      n: &n all
  web:
    image: busybox
    deploy:
      resources:
        reservations:
          devices:
            - count: *n
              capabilities: [gpu]
"""
    new = rewritten(tmp_path, text)
    assert original(new) == text
    without = new.replace(new[new.index("  db:") : new.index("  web:")], "")
    assert 'device_ids: ["GPU-' in original(without)
    assert rewritten(tmp_path, without)


def test_a_device_request_added_by_hand_is_left(tmp_path: Path) -> None:
    new = rewritten(tmp_path, PINNED.replace("- driver", "- options: {a: b}\n              driver"))
    more = new.replace("x-gpualloc:", "  more:\n    image: busybox\n    gpus: [{device_ids: ['3']}]\nx-gpualloc:", 1)
    assert "device_ids: ['3']" in original(more)


def test_a_service_of_nothing_is_filled_and_emptied_again(tmp_path: Path) -> None:
    by = replace(policy(), roles=(("web", Ask(gpus=GpuCount(1, 1))),))
    text = "services:\n  web:  # from elsewhere\n  db:\n    image: postgres\n"
    new = rewritten(tmp_path, text, by)
    assert "  web:  # from elsewhere\n    deploy:\n" in new
    assert original(new) == text


def test_services_that_are_an_alias_are_refused(tmp_path: Path) -> None:
    text = "x-all: &all\n  web:\n    image: busybox\n    gpus: all\nservices: *all\n"
    assert refusal(tmp_path, text) == "cannot-edit"


def test_keys_with_question_marks_are_refused(tmp_path: Path) -> None:
    text = "services:\n  web:\n    image: i\n    gpus: all\n    environment:\n      ? A\n      : b\n"
    assert refusal(tmp_path, text) == "cannot-edit"


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        "[]",
        '{version: "0.1", services: {}}',
        '{version: "1.0", services: []}',
        '{version: "1.0", services: {web: []}}',
        '{version: "1.0", services: {web: {other: 1}}}',
        '{version: "1.0", services: {web: {original: {gpus: 1}}}}',
        '{version: "1.0", services: {web: {kept: [everything]}}}',
        '{version: "1.0", services: {web: {original: {gpus: "gpus: {"}}}}',
        '{version: "1.0", services: {}, chomp: "|"}',
    ],
)
def test_a_record_that_is_damaged_is_refused(tmp_path: Path, record: str) -> None:
    assert refusal(tmp_path, f"services:\n  web: {{image: busybox, gpus: all}}\nx-gpualloc: {record}\n") == "record"


def test_a_record_of_what_is_no_longer_there_is_passed_over(tmp_path: Path) -> None:
    text = "services:\n  web: {image: busybox}\n"
    record = (
        '{version: "1.0", services: {gone: {}, web: {original: {gpus: "gpus: all"}, inherits: {deploy: "#00000000"}}}}'
    )
    assert original(f"{text}x-gpualloc: {record}\n") == text
    assert rewritten(tmp_path, f"{text}x-gpualloc: {record}\n") == text


def test_a_variable_that_names_other_gpus_is_brought_into_line_with_a_new_request(tmp_path: Path) -> None:
    body = "image: i, x-gpualloc: {gpus: 1}, environment: {NVIDIA_VISIBLE_DEVICES: %s}"
    assert 'NVIDIA_VISIBLE_DEVICES: "GPU-' in rewritten(tmp_path, f"services:\n  web: {{{body % 'all'}}}\n")
    # Where the devices come by CDI, void keeps the runtime from adding others.
    assert "NVIDIA_VISIBLE_DEVICES: void" in rewritten(tmp_path, f"services:\n  web: {{{body % 'void'}}}\n")
