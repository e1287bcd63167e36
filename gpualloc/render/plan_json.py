"""A plan as JSON: what ``plan --format json`` prints, ``plan -o`` saves and ``apply PLAN`` reads back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from gpualloc.jsontext import load
from gpualloc.model import (
    FORMAT_VERSION,
    Action,
    ComposeInput,
    DeviceRef,
    Placement,
    Plan,
    PlanInputs,
    PlanWarning,
    Refusal,
    Solution,
    Tier,
    TierValue,
    Unplaced,
)

if TYPE_CHECKING:
    from gpualloc.strict import Value

ACTIONS: tuple[Action, ...] = get_args(Action)


def dump(plan: Plan) -> str:
    """Return ``plan`` as the JSON document that ``plan.schema.json`` describes, with a newline at its end.

    Only ASCII is written, so that it is the same document whatever encoding the output has. Raises ``ValueError`` for a
    tier whose value or bound is not a finite number.
    """
    solution = plan.solution
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "complete": plan.complete,
        "changed": plan.changed,
    }
    if not solution.reproducible:
        document["reproducible"] = False
    document |= {
        "inputs": _inputs(plan.inputs),
        "placements": [_placement(placement) for placement in solution.placements],
        "unplaced": [_unplaced(worker) for worker in solution.unplaced],
        "objective": [
            {"name": tier.name, "sense": tier.sense, "value": tier.value, "bound": tier.bound, "proven": tier.proven}
            for tier in solution.objective
        ],
        "warnings": [
            {"code": warning.code, "detail": warning.detail, "workers": list(warning.workers)}
            for warning in solution.warnings
        ],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _inputs(inputs: PlanInputs) -> dict[str, Any]:
    scale = {"scale": dict(inputs.scale)} if inputs.scale else {}
    return {
        "compose": [{"file": compose.file, "sha256": compose.sha256} for compose in inputs.compose],
        "inventory": list(inputs.inventory),
        "inventory_sha256": inputs.inventory_sha256,
        "policy": inputs.policy,
        "policy_sha256": inputs.policy_sha256,
        "profiles": list(inputs.profiles),
        **scale,
    }


def _placement(placement: Placement) -> dict[str, Any]:
    return {
        "worker": placement.worker,
        "service": placement.service,
        "replica": placement.replica,
        "host": placement.host,
        "devices": [{"uuid": device.uuid, "index": device.index} for device in placement.devices],
        "memory_mib": placement.memory_mib,
        "exclusive": placement.exclusive,
        "action": placement.action,
        "previous": None if placement.previous is None else list(placement.previous),
        "reason": placement.reason,
    }


def _unplaced(worker: Unplaced) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "reasons": [
            {"code": reason.code, "devices": list(reason.devices), "detail": reason.detail} for reason in worker.reasons
        ],
        "hint": worker.hint,
    }


# --------------------------------------------------------------------------------------------------------------------


def parse(text: str, file: str) -> Plan:
    """Return the plan in a JSON document; ``file`` is its name in messages.

    Raises ``GpuallocError`` for anything that ``plan.schema.json`` does not allow, naming its path and place, and
    beyond the schema for a worker that occurs twice and for a device given twice to one worker.
    """
    root = load(text, file, "plan", "gpualloc plan -o FILE writes one that is right")
    fields = _versioned(root).fields(
        required=("format_version", "complete", "changed", "inputs", "placements", "unplaced", "objective", "warnings"),
        optional=("reproducible",),
    )
    if "reproducible" in fields and fields["reproducible"].boolean():
        raise fields["reproducible"].error("value", "is written only where it is false", "leave it out")
    solution = Solution(
        placements=tuple(map(_read_placement, fields["placements"].items())),
        unplaced=tuple(map(_read_unplaced, fields["unplaced"].items())),
        objective=tuple(map(_read_tier, fields["objective"].items())),
        warnings=tuple(map(_read_warning, fields["warnings"].items())),
        reproducible="reproducible" not in fields,
    )
    plan = Plan(_read_inputs(fields["inputs"]), solution, fields["changed"].boolean())
    if fields["complete"].boolean() != plan.complete:
        holds = "holds no worker" if plan.complete else "holds workers"
        raise fields["complete"].error("value", f"contradicts `unplaced`, which {holds}")
    _check_workers(fields)
    return plan


def _versioned(root: Value) -> Value:
    """Check the version first: a document of another version may have any other keys."""
    if isinstance(root.raw, dict) and "format_version" in root.raw and root.raw["format_version"] != FORMAT_VERSION:
        version = root.at("format_version")
        raise version.error(
            "version",
            f"must be {json.dumps(FORMAT_VERSION)}, not {json.dumps(version.raw)}",
            "save the plan again with this version of gpualloc",
        )
    return root


def _check_workers(fields: dict[str, Value]) -> None:
    seen = set()
    for key in ("placements", "unplaced"):
        for item in fields[key].items():
            worker = item.at("worker")
            if worker.raw in seen:
                raise worker.error("duplicate-worker", f"the worker {worker.raw} occurs twice")
            seen.add(worker.raw)


def _read_inputs(value: Value) -> PlanInputs:
    required = ("compose", "inventory", "inventory_sha256", "policy", "policy_sha256", "profiles")
    fields = value.fields(required, optional=("scale",))
    return PlanInputs(
        compose=tuple(map(_read_compose, _some(fields["compose"]))),
        inventory=tuple(source.text() for source in _some(fields["inventory"])),
        inventory_sha256=fields["inventory_sha256"].text(),
        policy=fields["policy"].text(),
        policy_sha256=fields["policy_sha256"].text(),
        profiles=_texts(fields["profiles"]),
        scale=_read_scale(fields["scale"]) if "scale" in fields else (),
    )


def _read_scale(value: Value) -> tuple[tuple[str, int], ...]:
    return tuple((role, count.integer(minimum=1)) for role, count in value.entries())


def _read_compose(value: Value) -> ComposeInput:
    fields = value.fields(("file", "sha256"))
    return ComposeInput(fields["file"].text(), fields["sha256"].text())


def _read_placement(value: Value) -> Placement:
    fields = value.fields(
        (
            "worker",
            "service",
            "replica",
            "host",
            "devices",
            "memory_mib",
            "exclusive",
            "action",
            "previous",
            "reason",
        )
    )
    return Placement(
        worker=fields["worker"].text(),
        service=fields["service"].text(),
        replica=fields["replica"].integer(minimum=1),
        host=fields["host"].text(),
        devices=_read_devices(fields["devices"]),
        memory_mib=fields["memory_mib"].or_none(lambda memory: memory.integer(minimum=1)),
        exclusive=fields["exclusive"].boolean(),
        action=fields["action"].choice(ACTIONS),
        previous=fields["previous"].or_none(_texts),
        reason=fields["reason"].text(empty=True),
    )


def _read_devices(value: Value) -> tuple[DeviceRef, ...]:
    devices: dict[str, DeviceRef] = {}
    for item in _some(value):
        fields = item.fields(("uuid", "index"))
        uuid = fields["uuid"].text()
        if uuid in devices:
            raise fields["uuid"].error("duplicate-device", f"{uuid} is given twice to one worker")
        devices[uuid] = DeviceRef(uuid, fields["index"].integer(minimum=0))
    return tuple(devices.values())


def _read_unplaced(value: Value) -> Unplaced:
    fields = value.fields(("worker", "reasons", "hint"))
    reasons = tuple(map(_read_reason, fields["reasons"].items()))
    return Unplaced(fields["worker"].text(), reasons, fields["hint"].text(empty=True))


def _read_reason(value: Value) -> Refusal:
    fields = value.fields(("code", "devices", "detail"))
    return Refusal(fields["code"].text(), _texts(fields["devices"]), fields["detail"].text(empty=True))


def _read_tier(value: Value) -> Tier:
    fields = value.fields(("name", "sense", "value", "bound", "proven"))
    return Tier(
        name=fields["name"].text(),
        sense=fields["sense"].choice(("min", "max")),
        value=_read_tier_value(fields["value"]),
        bound=_read_tier_value(fields["bound"]),
        proven=fields["proven"].boolean(),
    )


def _read_tier_value(value: Value) -> TierValue:
    """Read a number, null, or the whole numbers of a vector."""
    raw = value.raw
    if raw is None or type(raw) in {int, float}:
        number: int | float | None = raw
        return number
    if isinstance(raw, list):
        return tuple(item.integer() for item in value.items())
    raise value.type_error("a number, a list of whole numbers or null")


def _read_warning(value: Value) -> PlanWarning:
    fields = value.fields(("code", "detail", "workers"))
    return PlanWarning(fields["code"].text(), fields["detail"].text(empty=True), _texts(fields["workers"]))


def _some(value: Value) -> tuple[Value, ...]:
    """Return the items of a list that must have one at least."""
    items = value.items()
    if not items:
        raise value.error("value", "must have at least one item")
    return items


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(item.text() for item in value.items())
