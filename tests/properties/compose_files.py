"""A hypothesis strategy that writes compose files as people do, and as nobody should.

All forms of asking for GPUs, in list and map, flow and block, through anchors, aliases, merge keys and lists of them,
with comments, blank lines, odd indents and line endings anywhere. The files are mostly ones that Compose loads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.properties.yaml_text import Lines, Map, Node, Pair, Raw, Seq, block, flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn

COMMENTS = (
    "# why",
    "# TODO: tune",
    "#: ümläut\t🙂",
    "# - A=1",
    "# key: value",
    "#",
    '# it\'s "quoted"',
    "# " + "long " * 30,
)
VALUES = (
    "plain", "'single'", '"double"', '"esc\\tape \\u00e9"', "'it''s'", '"0"', "1", "true", "üñí", "${VAR:-x}", "a#b",
    "'{{.X}} $$HOME'", "http://h:80/x", '"🙂"', "~", "0x1F", "12:30", "yes", "a  b", '"# no comment"', "1.0", "017",
)  # fmt: skip
NAMES = ("A", "B_2", "LONG_VARIABLE_NAME", "lower", "ÜMLAUT", "X.Y")
ITEM_VALUES = ("", "1", "a b", "x=y", "${V:-z}", "é", "1,2", "'q'", "#x")
SERVICES = ("web", "worker-1", "a.b", "gpu_job", "x1", "db")
TEXT = ("text", "more  ", "  deeper", "", "# no comment", "k: v", "   ")
UUIDS = tuple(f"GPU-{n:08x}-0000-0000-0000-000000000000" for n in range(64))


@dataclass
class Written:
    """A generated file: its bytes' text, and the names of the services it defines."""

    text: str
    services: list[str]
    newline: str


@dataclass
class _Anchors:
    """Which anchors stand before the present place, by what they hold."""

    kinds: dict[str, str] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[str]:
        return [name for name, kind in self.kinds.items() if kind in kinds]


class Choices:
    """The choices a file is written by, drawn by hypothesis."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw

    def chance(self, one_in: int) -> bool:
        """Choose the rarer thing, once in so many times."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def pick(self, *options: Any) -> Any:
        """Choose one; the first is the simplest."""
        return self.draw(st.sampled_from(options))

    def some(self, options: Sequence[Any], at_least: int, at_most: int) -> list[Any]:
        """Choose some, each at most once, in any order."""
        return self.draw(st.lists(st.sampled_from(options), min_size=at_least, max_size=at_most, unique_by=id))

    def shuffled(self, options: list[Any]) -> list[Any]:
        """Choose an order."""
        return list(self.draw(st.permutations(options)))


class _Writer:
    """Draws nodes in the order of the text, so that every alias has its anchor before it."""

    def __init__(self, choices: Choices, *, replicas: bool = False) -> None:
        self.replicas = replicas
        self.chance, self.pick, self.some, self.shuffled = (
            choices.chance,
            choices.pick,
            choices.some,
            choices.shuffled,
        )
        self.anchors = _Anchors()
        self.step = self.pick(2, 2, 2, 4, 1, 3)
        self.dash = self.pick(0, 2, self.step)
        self.busy = bool(self.pick(0, 1))

    def comments(self) -> list[str]:
        if not self.busy or not self.chance(5):
            return []
        return self.some(("", *COMMENTS, ">" + COMMENTS[0], "<# left"), 1, 2)

    def behind(self) -> str:
        return str(self.pick(*COMMENTS)) if self.busy and self.chance(6) else ""

    def pair(self, key: str, value: Node) -> Pair:
        quoted = key
        if self.chance(12) and key != "<<":
            quoted = self.pick(f'"{key}"', f"'{key}'")
        return Pair(quoted, value, self.comments(), self.behind())

    def map(self, pairs: list[Pair], *, kind: str = "", tag: bool = False, flows: int = 8) -> Map:
        step = self.step if not self.chance(10) else self.pick(1, 2, 3, 4)
        node = Map(pairs, step=step, own_line=self.chance(3), below=self.comments())
        node.flow = self.chance(flows) and self.fits_flow(node)
        node.spread = node.flow and self.chance(3)
        self.anchor(node, kind, tag=tag)
        return node

    def seq(self, items: list[Node], *, kind: str = "", tag: bool = False, flows: int = 3) -> Seq:
        step = self.dash if not self.chance(10) else self.pick(0, 1, 2, 4)
        node = Seq(items, step=step, own_line=self.chance(3), below=self.comments())
        node.flow = self.chance(flows) and self.fits_flow(node)
        node.spread = node.flow and self.chance(3)
        self.anchor(node, kind, tag=tag)
        return node

    def fits_flow(self, node: Node) -> bool:
        """Flow style needs scalars that hold no flow indicator, and no block scalars."""
        if isinstance(node, Raw):
            return node.text[:1] in {"'", '"', "*", "["} or not set(node.text) & set(",[]{}")
        if isinstance(node, Map):
            return all(self.fits_flow(p.value) for p in node.pairs)
        return isinstance(node, Seq) and all(self.fits_flow(i) for i in node.items)

    def anchor(self, node: Map | Seq, kind: str, *, tag: bool) -> None:
        if kind and self.chance(4):
            # Names may be given twice: later aliases mean the later node.
            name = self.pick(f"{kind}-1", f"{kind}-2", "x_1")
            inside = flow(node, 0)
            if f"*{name}" not in inside and f"&{name}" not in inside:  # else an alias would not mean this node
                node.anchor = name
                self.anchors.kinds[name] = kind
        if tag and self.chance(20):
            node.tag = self.pick("!override", "!!map" if isinstance(node, Map) else "!!seq")

    # ----------------------------------------------------------------------------------------------------------------
    # Parts of services

    def environment(self) -> Node:
        """Draw an environment in any form."""
        aliases = self.anchors.of("env", "envlist")
        if aliases and self.chance(4):
            return Raw(f"*{self.pick(*aliases)}")
        owned = [n for n in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES") if self.chance(8)]
        names = [*self.some(NAMES, 0, 3), *owned]
        if self.chance(3):
            return self.environment_list(names)
        pairs: list[Pair] = []
        merges = self.anchors.of("env")
        if merges and self.chance(3):
            pairs.append(self.pair("<<", self.merge(merges)))
        for name in names:
            value = self.value() if name in NAMES else Raw(self.pick('"0"', "'0,1'", "all", "2", "${GPU:-0}"))
            pairs.append(self.pair(name, value))
        return self.map(pairs, kind="env", tag=True) if pairs else self.nothing()

    def environment_list(self, names: list[str]) -> Node:
        items: list[Node] = []
        for name in names:
            text = f"{name}={self.pick(*ITEM_VALUES)}" if not self.chance(6) else name
            if name not in NAMES:
                text = f"{name}={self.pick('0', '0,1', 'all', '${GPU:-0}')}"
            quoted = self.pick(json.dumps(text, ensure_ascii=False), "'" + text.replace("'", "''") + "'")
            bare = not set(text) & set("'\"") and " #" not in text and "=#" not in text
            items.append(Raw(text if bare and not self.chance(4) else quoted))
        return self.seq(items, kind="envlist", tag=True) if items else Raw("[]")

    def merge(self, names: list[str]) -> Node:
        if self.chance(4):
            chosen = self.some(names, 1, 3)
            return Seq([Raw(f"*{name}") for name in chosen], flow=bool(self.pick(1, 0)), step=self.step)
        return Raw(f"*{self.pick(*names)}")

    def nothing(self) -> Node:
        return Raw(self.pick("{}", "", "null", "~"))

    def value(self) -> Node:
        if self.chance(8):
            return self.lines()
        return Raw(self.pick(*VALUES))

    def lines(self) -> Lines:
        lines = self.some(TEXT, 0, 4)
        indent = self.pick(self.step, 4)
        explicit = str(indent) if not lines or lines[0].startswith(" ") or not lines[0] else ""
        return Lines(self.pick("|", ">") + explicit + self.pick("", "-", "+"), list(lines), indent)

    def entry(self) -> Node:
        """Draw one GPU device request."""
        aliases = self.anchors.of("entry")
        if aliases and self.chance(5):
            return Raw(f"*{self.pick(*aliases)}")
        pairs = []
        if aliases and self.chance(5):
            pairs.append(self.pair("<<", Raw(f"*{self.pick(*aliases)}")))
        if not self.chance(4):
            pairs.append(self.pair("driver", Raw(self.pick("nvidia", '"nvidia"'))))
        form = self.pick("count", "count", "all", "ids", "neither")
        if form == "count":
            pairs.append(self.pair("count", Raw(self.pick("1", "2", '"1"', "${N:-1}"))))
        elif form == "all":
            pairs.append(self.pair("count", Raw(self.pick("all", '"all"', "-1"))))
        elif form == "ids":
            ids: list[Node] = [Raw(self.pick(*(f'"{n}"' for n in range(4)), f"'{UUIDS[5]}'"))]
            pairs.append(self.pair("device_ids", self.seq(ids)))
        gpu: list[Node] = [Raw(name) for name in ("gpu", "utility")[: self.pick(1, 1, 2)]]
        pairs.append(self.pair("capabilities", self.seq(gpu, flows=2)))
        return self.map(self.shuffled(pairs), kind="entry")

    def devices(self) -> Node:
        aliases = self.anchors.of("devlist")
        if aliases and self.chance(4):
            return Raw(f"*{self.pick(*aliases)}")
        items: list[Node] = [self.entry()]
        if self.chance(8):
            other = [self.pair("driver", Raw("other")), self.pair("capabilities", Seq([Raw("tpu")], flow=True))]
            items.insert(self.pick(0, 1), self.map(other))
        return self.seq(items, kind="devlist", flows=8)

    def deploy(self) -> Node:
        aliases = self.anchors.of("deploy")
        if aliases and self.chance(2):
            return Raw(f"*{self.pick(*aliases)}")
        reservations = [self.pair("devices", self.devices())]
        if self.chance(5):
            reservations.insert(0, self.pair("memory", Raw("1g")))
        resources = [self.pair("reservations", self.map(reservations, kind="res", tag=True))]
        if self.chance(4):
            limits = self.map([self.pair("memory", Raw("8g"))])
            resources.insert(self.pick(0, 1), self.pair("limits", limits))
        pairs = [self.pair("resources", self.map(resources, tag=True))]
        if self.chance(6):
            pairs.append(self.pair("replicas", Raw("1")))
        merges = self.anchors.of("deploy")
        if merges and self.chance(6):
            pairs.insert(0, self.pair("<<", Raw(f"*{self.pick(*merges)}")))
        return self.map(pairs, kind="deploy", tag=True)

    def request(self) -> list[tuple[str, Callable[[], Node]]]:
        """Draw how a service asks for GPUs, as keys with what writes their values."""
        form = self.pick("deploy", "deploy", "deploy", "gpus", "gpus", "runtime", "cdi", "x", "none", "runtime+deploy")
        runtime: tuple[str, Callable[[], Node]] = ("runtime", lambda: Raw("nvidia"))
        ask: tuple[str, Callable[[], Node]] = ("x-gpualloc", lambda: self.map([self.pair("gpus", Raw("1"))]))
        return {
            "deploy": [("deploy", self.deploy)],
            "gpus": [("gpus", self.gpus)],
            "runtime": [runtime],
            "cdi": [("devices", self.cdi)],
            "x": [ask, ("deploy", self.bare_deploy)] if self.chance(2) else [ask],
            "none": [],
            "runtime+deploy": [("deploy", self.deploy), runtime],
        }[form]

    def bare_deploy(self) -> Node:
        return self.nothing() if self.chance(2) else self.map([self.pair("replicas", Raw("1"))])

    def gpus(self) -> Node:
        aliases = self.anchors.of("devlist")
        if aliases and self.chance(5):
            return Raw(f"*{self.pick(*aliases)}")
        if self.chance(2):
            return Raw(self.pick("all", '"all"'))
        return self.seq([self.map([self.pair("count", Raw(self.pick("1", "all", "2")))], flows=2)])

    def cdi(self) -> Node:
        names: list[Node] = [Raw(self.pick("nvidia.com/gpu=all", '"nvidia.com/gpu=0"', "nvidia.com/gpu=1"))]
        if self.chance(3):
            names.insert(self.pick(0, 1), Raw("/dev/fuse:/dev/fuse"))
        return self.seq(names)

    # ----------------------------------------------------------------------------------------------------------------
    # Services and files

    def service(self, others: list[str], *, template: bool = False) -> Node:
        aliases = self.anchors.of("service")
        if aliases and not template and self.chance(10):
            return Raw(f"*{self.pick(*aliases)}")
        makers: list[tuple[str, Callable[[], Node]]] = [("image", lambda: Raw(self.pick("busybox", '"busybox:1"')))]
        makers += self.request()
        if not self.chance(3):
            makers.append(("environment", self.environment))
        if self.chance(4):
            makers.append(("command", self.command))
        if self.chance(4):
            makers.append(("labels", lambda: self.map([self.pair("l", self.value())], kind="labels")))
        if self.chance(5):
            makers.append(("volumes", lambda: self.seq([Raw("/tmp:/t"), Raw("./a:/a:ro")])))  # noqa: S108 - only text
        if others and not template and self.chance(8):
            target = self.pick(*others)
            makers.append(
                ("extends", lambda: Raw(target) if self.chance(2) else Map([Pair("service", Raw(target))], flow=True))
            )
        if self.replicas:
            makers += self.of_replicas(others, template=template)
        pairs: list[Pair] = []
        if aliases and self.chance(3):
            pairs.append(self.pair("<<", self.merge(aliases)))
        for key, make in self.shuffled(makers):
            pairs.append(self.pair(key, make()))
        return self.map(pairs, kind="service", flows=12)

    def of_replicas(self, others: list[str], *, template: bool) -> list[tuple[str, Callable[[], Node]]]:
        """Draw what matters to a service that is to have several containers, or to one that names such a service."""
        makers: list[tuple[str, Callable[[], Node]]] = []
        if self.chance(2):
            makers.append(("scale", lambda: Raw(self.pick("2", "3", '"2"', "1"))))
        if self.chance(3):
            makers.append(("networks", self.networks))
        if self.chance(3):
            makers.append(("ports", self.ports))
        if not template and self.chance(4):
            name = self.pick(*(f"c-{number}" for number in range(40)))
            makers.append(("container_name", lambda: Raw(self.pick(name, f'"{name}"'))))
        if others and not template and self.chance(2):
            makers.append(("depends_on", lambda: self.names(others)))
        if others and not template and self.chance(4):
            makers.append(("links", lambda: self.seq([Raw(f"{name}:x") for name in self.some(others, 1, 2)])))
        return makers

    def networks(self) -> Node:
        names = self.some(("front", "back"), 1, 2)
        if self.chance(2):
            return self.seq([Raw(name) for name in names], kind="netlist")
        values: list[Node] = [Raw(self.pick("", "null", "{}")) for _ in names]
        if self.chance(2):
            values[0] = self.map([self.pair("aliases", self.seq([Raw("known-as")]))], kind="net")
        return self.map([self.pair(name, value) for name, value in zip(names, values, strict=True)], kind="nets")

    def ports(self) -> Node:
        texts = ("80", '"8000:80"', "'127.0.0.1:8001:81/udp'", "9000-9001:90-91", '"7000-7009:70"')
        items: list[Node] = [Raw(text) for text in self.some(texts, 1, 2)]
        if self.chance(4):
            items.append(
                self.map([self.pair("target", Raw("1")), self.pair("published", Raw(self.pick("1234", '"99"')))])
            )
        return self.seq(items, kind="ports", flows=1000)

    def names(self, others: list[str]) -> Node:
        aliases = self.anchors.of("needs")
        if aliases and self.chance(3):
            return Raw(f"*{self.pick(*aliases)}")
        names = self.some(others, 1, 3)
        if self.chance(2):
            return self.seq([Raw(self.pick(name, f'"{name}"')) for name in names], kind="needs")
        condition = [self.pair("condition", Raw("service_started"))]
        return self.map([self.pair(name, self.map(condition, kind="condition")) for name in names], kind="needs")

    def command(self) -> Node:
        if self.chance(2):
            return self.lines()
        return self.seq([Raw("echo"), Raw('"a b"'), Raw("'$$x'")])

    def extensions(self) -> list[Pair]:
        makers: list[tuple[str, Callable[[], Node]]] = [
            ("x-env", self.environment),
            ("x-deploy", self.deploy),
            ("x-common", lambda: self.service([], template=True)),
            ("x-entry", self.entry),
            ("x-services", self.shared_services),
            ("x-logging", lambda: self.map([self.pair("driver", Raw("json-file"))])),
        ]
        chosen = self.some(makers, 0, 3)
        return [self.pair(key, make()) for key, make in chosen]

    def shared_services(self) -> Node:
        pair = self.pair("shared", self.service([], template=True))
        return self.map([pair], kind="services", flows=12)

    def services(self) -> tuple[Map, list[str]]:
        names = self.some(SERVICES, 1, 3)
        done: list[str] = []
        pairs: list[Pair] = []
        merges = self.anchors.of("services")
        if merges and self.chance(2):
            pairs.append(self.pair("<<", self.merge(merges)))
        for name in names:
            pairs.append(self.pair(name, self.service(done)))
            done.append(name)
        return self.map(pairs, flows=25), list(names)


@st.composite
def compose_files(draw: DrawFn, *, replicas: bool = False) -> Written:
    """Draw a compose file. ``replicas``: with services of several containers, and what matters to them."""
    return compose_file(Choices(draw), replicas=replicas)


@st.composite
def hand_choices(draw: DrawFn) -> Choices:
    """Draw choices to be made later, by a test."""
    return Choices(draw)


def compose_file(choices: Choices, *, replicas: bool = False) -> Written:
    """Write a compose file by these choices."""
    writer = _Writer(choices, replicas=replicas)
    if writer.chance(12):
        return _json_file(writer)
    pairs = [writer.pair("name", Raw("demo"))] if writer.chance(3) else []
    pairs += writer.extensions()
    services, names = writer.services()
    pairs.append(writer.pair("services", services))
    if writer.chance(3):
        pairs.append(writer.pair("volumes", Map([Pair("data", Raw(""))], step=writer.step)))
    if writer.chance(6):
        pairs.append(writer.pair("x-notes", writer.lines()))
    lines = [*_head(writer), *block(Map(pairs, below=writer.comments()), 0)]
    if writer.chance(12):
        writer.anchors = _Anchors()
        more, others = writer.services()
        lines += ["---", *block(Map([writer.pair("services", more)]), 0)]
        names = list(dict.fromkeys([*names, *others]))
    return _ended(writer, lines, names)


def _head(writer: _Writer) -> list[str]:
    head = ["# A compose file", ""] if writer.chance(3) else []
    return [*head, "---"] if writer.chance(4) else head


def _ended(writer: _Writer, lines: list[str], names: list[str]) -> Written:
    newline = writer.pick("\n", "\n", "\n", "\r\n")
    if writer.chance(20):
        lines.append("...")
    ending = writer.pick("\n", "\n", "", "\n\n", "\n  ")
    return Written(newline.join(lines) + ending.replace("\n", newline), names, newline)


def _json_file(writer: _Writer) -> Written:
    """Draw a compose file that is JSON: nothing but flow collections and double quotes."""
    service: dict[str, Any] = {"image": "busybox"}
    if writer.chance(2):
        service["gpus"] = writer.pick("all", [{"count": 2}])
    else:
        entry = writer.pick({"count": 1, "capabilities": ["gpu"]}, {"capabilities": ["gpu"]})
        service["deploy"] = {"resources": {"reservations": {"devices": [entry]}}}
    environment = writer.pick(None, {}, {"A": "1"}, ["A=1"], ["A=1", "CUDA_VISIBLE_DEVICES=3"])
    if environment is not None:
        service["environment"] = environment
    data = {"services": {"web": service, "db": {"image": "busybox"}}}
    text = json.dumps(data, indent=writer.pick(None, 2, 4), ensure_ascii=False)
    return Written(text + writer.pick("", "\n"), ["web", "db"], "\n")
