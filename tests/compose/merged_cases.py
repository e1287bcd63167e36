"""Projects for test_merged.py: files laid over each other, services that extend others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """``text``: the files, divided by lines of ``%%``, laid over each other in order.

    ``edited``: which of them change in place.

    ``policy``: its text. ``told``: the codes of the notes. ``bare``: services without GPUs, and their
    CUDA_VISIBLE_DEVICES in the end.
    """

    text: str
    edited: tuple[int, ...] = ()
    policy: str = ""
    profiles: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    bare: dict[str, str | None] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The text of each file."""
        return self.text.split("%%\n")


@dataclass(frozen=True)
class Refusal:
    """What is said of a project that cannot be written in place, and where."""

    case: Case
    code: str
    place: tuple[int, int]
    says: str


CASES = {
    "a later file sets the variable": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  w:
    environment:
      CUDA_VISIBLE_DEVICES: '3'
""",
        edited=(0, 1),
    ),
    "a later file sets it in a list": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services: {w: {environment: [CUDA_VISIBLE_DEVICES=3, A=b]}}
""",
        edited=(0, 1),
    ),
    "a later file passes the host's": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services: {w: {environment: [CUDA_VISIBLE_DEVICES, A=b]}}
""",
        edited=(0, 1),
    ),
    "a later file passes the host's in a map": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services: {w: {environment: {CUDA_DEVICE_ORDER: , A: b}}}
""",
        edited=(0, 1),
    ),
    "the last of three wins": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  w:
    environment: {CUDA_VISIBLE_DEVICES: 3}
%%
services:
  w:
    environment: {CUDA_VISIBLE_DEVICES: 4, CUDA_DEVICE_ORDER: FASTEST_FIRST}
""",
        edited=(0, 2),
    ),
    "a later file replaces the environment": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  w:
    environment: !override
      A: b
""",
        edited=(0, 1),
    ),
    "a later file drops the environment": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  w:
    environment: !reset null
""",
        edited=(0, 1),
    ),
    "a later file drops the variable": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 2
              capabilities: [gpu]
    environment:
      CUDA_VISIBLE_DEVICES: '1'
%%
services:
  w:
    environment:
      CUDA_VISIBLE_DEVICES: !reset null
""",
        edited=(0, 1),
    ),
    "runtime here, its variable there": Case(
        """\
services:
  w:
    image: i
    runtime: nvidia
%%
services:
  w:
    environment:
      - NVIDIA_VISIBLE_DEVICES=0
""",
        edited=(0, 1),
    ),
    "a later file extends what sets the variable": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  v: {image: i, environment: {CUDA_VISIBLE_DEVICES: '5'}}
  w: {extends: v, labels: {a: b}}
""",
        edited=(0, 1),
    ),
    "a later file sets nothing of ours": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services: {w: {environment: {A: b}, labels: {a: b}}}
""",
        edited=(0,),
    ),
    "a request of its own, laid over by a limit": Case(
        """\
services:
  w:
    image: i
    x-gpualloc: {gpus: 2}
%%
services:
  w:
    deploy: !override {mode: replicated}
""",
        edited=(0, 1),
    ),
    "both of two that extend": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 2
              capabilities: [gpu]
  v: {extends: w}
""",
        edited=(0,),
    ),
    "three in a row that name the file": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v: {extends: w}
  u:
    extends: {service: v, file: c0.yaml}
    labels: {a: b}
""",
        edited=(0,),
    ),
    "one that asks for more": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v:
    extends: w
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
""",
        edited=(0,),
    ),
    "gpus that are extended": Case(
        """\
services:
  w: {image: i, gpus: all}
  v: {extends: w}
""",
        edited=(0,),
    ),
    "a list of gpus that is extended": Case(
        """\
services:
  w: {image: i, gpus: [{count: 2}]}
  v: {extends: w}
""",
        edited=(0,),
    ),
    "CDI that is extended": Case(
        """\
services:
  w:
    image: i
    devices: [nvidia.com/gpu=0]
  v:
    extends: w
    devices: [/dev/fuse]
""",
        edited=(0,),
    ),
    "a runtime that is extended": Case(
        """\
services:
  w:
    image: i
    runtime: nvidia
    environment: [NVIDIA_VISIBLE_DEVICES=0]
  v: {extends: w}
""",
        edited=(0,),
    ),
    "an environment list that is extended": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 2
              capabilities: [gpu]
    environment:
      - A=b
      - CUDA_VISIBLE_DEVICES=1
  v:
    extends: w
    environment: [C=d]
""",
        edited=(0,),
    ),
    "one that was right already, below one that was not": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 2
              capabilities: [gpu]
    environment: {CUDA_VISIBLE_DEVICES: '0'}
  v:
    extends: w
    deploy: {resources: {reservations: {devices: !override [{count: 1, capabilities: [gpu]}]}}}
""",
        edited=(0,),
    ),
    "pinned by hand, both, and one moves": Case(
        """\
services:
  w:
    image: i
    deploy: {resources: {reservations: {devices: [{device_ids: ["0"], capabilities: [gpu]}]}}}
  v:
    extends: w
    x-gpualloc: {exclusive: true}
""",
        edited=(0,),
    ),
    "a variable for those that share": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
    x-gpualloc: {memory: 4GiB}
    environment: {A: b}
  v:
    extends: w
    x-gpualloc: {exclusive: true}
""",
        edited=(0,),
        policy="write: {env_shared: {SHARE: $memory_fraction}}\n",
    ),
    "an extended service in another of the files": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
%%
services:
  v:
    extends: {file: c0.yaml, service: w}
    environment: {A: b}
""",
        edited=(0, 1),
    ),
    "one whose profile is not active extends": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v: {extends: w, profiles: [more]}
""",
        edited=(0,),
        told=("inherited",),
    ),
    "one that is active extends one that is not": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
    profiles: [more]
  v: {extends: w, profiles: !override [less]}
""",
        edited=(0,),
        profiles=("less",),
    ),
    "one without GPUs extends": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v:
    extends: w
    deploy: !reset null
""",
        edited=(0,),
        told=("inherited",),
        bare={"v": "0"},
    ),
    "one without GPUs that says so extends": Case(
        """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v:
    extends: w
    deploy: !reset null
    environment: !override {A: b}
""",
        edited=(0,),
        bare={"v": None},
    ),
    "extends in two files, in two forms": Case(
        """\
services:
  w:
    image: i
    gpus: [{count: 1}]
  v:
    extends: {service: w}
%%
services:
  w: {labels: {a: b}}
  v:
    extends: w
""",
        edited=(0,),
    ),
    "a tag that has nothing below it": Case(
        """\
services:
  w:
    image: i
    deploy: {resources: {reservations: {devices: !override [{count: 1, capabilities: [gpu]}]}}}
%%
services:
  w:
    deploy: {resources: {reservations: {devices: [{count: 1, capabilities: [gpu]}]}}}
""",
        edited=(1,),
    ),
    "left alone in one file, and not in a later one": Case(
        """\
services:
  w:
    image: i
    gpus: [{count: 1}]
    x-gpualloc: false
%%
services:
  w:
    x-gpualloc: {exclusive: true}
""",
        edited=(0,),
    ),
}

REFUSED = {
    "a later document sets the variable": Refusal(
        Case(
            """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
---
services:
  w:
    environment:
      CUDA_VISIBLE_DEVICES: '3'
""",
            edited=(),
        ),
        code="overridden",
        place=(15, 29),
        says="w would have '3' all the same, by CUDA_VISIBLE_DEVICES",
    ),
    "one that is left alone extends": Refusal(
        Case(
            """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v:
    extends: w
    x-gpualloc: false
""",
            edited=(),
        ),
        code="inherited",
        place=(12, 5),
        says="v would get the GPUs of w, which it extends",
    ),
    "a variable that cannot be taken back from a list": Refusal(
        Case(
            """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
    x-gpualloc: {memory: 4GiB}
    environment: [A=b]
  v:
    extends: w
    x-gpualloc: {exclusive: true}
""",
            edited=(),
            policy="write: {env_shared: {SHARE: $memory_fraction}}\n",
        ),
        code="overridden",
        place=(14, 5),
        says="SHARE",
    ),
    "three in a row": Refusal(
        Case(
            """\
services:
  w:
    image: i
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  v: {extends: w}
  u:
    extends: {service: v}
    labels: {a: b}
"""
        ),
        code="extends-chain",
        place=(11, 6),
        says="v extends a service, and u extends v",
    ),
}
