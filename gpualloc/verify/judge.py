"""The verdict on each worker: what the file gives it against what its container has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.cuda import visible
from gpualloc.errors import Diagnostic
from gpualloc.render.words import counted, listed
from gpualloc.verification import FRAMEWORKS, Seen, WorkerCheck
from gpualloc.verify.causes import APPLY, Case, likely_cause
from gpualloc.verify.given import differences, given_to
from gpualloc.verify.look import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpualloc.errors import Severity
    from gpualloc.verification import Framework, Verdict
    from gpualloc.verify.docker import Container
    from gpualloc.verify.expect import Expectation
    from gpualloc.verify.machine import Machine


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All there is about one worker. ``outdated`` asks whether Compose would make its container anew."""

    expectation: Expectation
    container: Container | None
    sight: Sight | None
    outdated: Callable[[], bool | None]


def judge(evidence: Sequence[Evidence], machine: Machine) -> tuple[WorkerCheck, ...]:
    """Return the verdict on every worker, in the order given."""
    cases = {e.expectation.worker: _case(e, machine) for e in evidence}
    holders: dict[str, list[str]] = {}
    for worker, case in cases.items():
        for uuid in case.seen if case else ():
            holders.setdefault(uuid, []).append(worker)
    checks = []
    for one in evidence:
        case = cases[one.expectation.worker]
        findings = tuple(_findings(one, case, holders))
        checks.append(
            WorkerCheck(
                worker=one.expectation.worker,
                service=one.expectation.service,
                replica=one.expectation.replica,
                container=one.container.name if one.container else None,
                state=one.container.state if one.container else "parked" if one.expectation.parked else "missing",
                expected=one.expectation.devices,
                seen=_seen(case) if case and one.sight else None,
                verdict=_verdict(findings, one.sight),
                findings=findings,
            )
        )
    return tuple(checks)


def _verdict(findings: Sequence[Diagnostic], sight: Sight | None) -> Verdict:
    if any(finding.severity == "error" for finding in findings):
        return "wrong"
    return "unseen" if sight is not None and sight.cuda is None else "ok"


def _case(one: Evidence, machine: Machine) -> Case | None:
    """Return what a worker has and should have; of a container that is not running, what Docker would give it."""
    container, expectation = one.container, one.expectation
    if container is None:
        return None
    sight = one.sight or Sight()
    reachable = given_to(container, machine)
    present = reachable if sight.listed is None else machine.ordered(sight.listed)
    if sight.cuda is not None:
        seen = tuple(map(machine.known, sight.cuda))
    else:
        value = container.environment.get("CUDA_VISIBLE_DEVICES")
        seen = present if value is None else visible(value, present)
    return Case(
        expectation=expectation,
        container=container,
        sight=sight,
        machine=machine,
        expected=expectation.given if expectation.devices is None else expectation.devices,
        reachable=reachable,
        present=present,
        seen=seen,
        older=tuple(differences(expectation, container, machine)),
    )


def _seen(case: Case) -> Seen:
    sight = case.sight
    return Seen(
        devices=case.seen,
        how="cuda" if sight.cuda is not None else "docker" if sight.listed is None else "nvidia-smi",
        listed=None if sight.listed is None else case.present,
        cuda_visible_devices=case.environment.get("CUDA_VISIBLE_DEVICES"),
        frameworks=tuple(
            replace(f, uuids=None if f.uuids is None else tuple(map(case.machine.known, f.uuids)))
            for f in sight.frameworks
        ),
    )


def _findings(one: Evidence, case: Case | None, holders: dict[str, list[str]]) -> Iterator[Diagnostic]:
    expectation = one.expectation
    if case is None:
        yield _missing(expectation)
        return
    if not case.container.running:
        yield _stopped(case)
    yield from _devices(one, case)
    if expectation.devices is None:
        yield _unpinned(case, holders)
    if one.sight is not None:
        yield from _blind(case)
        yield from _frameworks(case)


def _missing(expectation: Expectation) -> Diagnostic:
    name = expectation.worker
    if expectation.parked:
        summary = f"{name} is parked: the file has no replica of it, since it did not fit"
        return Diagnostic("parked", summary, expectation.where, APPLY, "note")
    return Diagnostic("missing-container", f"{name} has no container", expectation.where, "docker compose up -d")


def _stopped(case: Case) -> Diagnostic:
    container, worker = case.container, case.expectation.worker
    error = container.error
    if error:
        summary = f"{worker} did not start: {error}"
        if "CDI" in error:
            hint = "the CDI spec may be stale: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
            return Diagnostic("stale-cdi", summary, case.expectation.where, hint)
        hint = "is NVIDIA's container toolkit set up on this host?" if "nvidia" in error else "docker compose up -d"
        return Diagnostic("not-started", summary, case.expectation.where, hint)
    code = f" with exit code {container.exit_code}" if container.state == "exited" else ""
    summary = f"{worker} is not running: its container {container.name} is {container.state}{code}"
    hint = f"docker compose logs {case.expectation.service}, or docker compose up -d"
    return Diagnostic("stopped-container", summary, case.expectation.where, hint)


def _devices(one: Evidence, case: Case) -> Iterator[Diagnostic]:
    """Compare the devices, and the container with the file."""
    expectation, machine = case.expectation, case.machine
    right = set(case.seen) == set(case.expected)
    if right and not case.older and set(case.expected) <= set(machine.names):
        return
    where = expectation.where
    cause = likely_cause(case)
    if cause.code == "older-than-file" and one.outdated() is False:
        detail = (
            f"its container is not as the file says, though Compose takes it for up to date: {'; '.join(case.older)}"
        )
        cause = cause._replace(code="container-differs", detail=detail, hint="docker compose up -d --force-recreate")
    if right:
        yield Diagnostic(cause.code, f"{expectation.worker}: {cause.detail}", where, cause.hint)
        return
    if cause.cuda and "CUDA_VISIBLE_DEVICES" in expectation.environment:
        where = expectation.cuda_where
    seen, expected = machine.label(case.seen) or "no GPU", machine.label(case.expected) or "none"
    summary = f"{expectation.worker} {_sees(case)} {seen}, not {expected}: {cause.detail}"
    yield Diagnostic(cause.code, summary, where, cause.hint)


def _sees(case: Case) -> str:
    return "sees" if case.container.running else "would see"


def _unpinned(case: Case, holders: dict[str, list[str]]) -> Diagnostic:
    expectation = case.expectation
    others = dict.fromkeys(w for uuid in case.seen for w in holders[uuid] if w != expectation.worker)
    shared = f", as {listed(list(others), 5)} {'do' if len(others) > 1 else 'does'}" if others else ""
    sees = f"it {_sees(case)} {case.machine.label(case.seen) or 'no GPU'}{shared}"
    if expectation.copies > 1:
        summary = f"{expectation.worker} shares one device list with {expectation.copies - 1} more: {sees}"
        return Diagnostic("replicas", summary, expectation.where, APPLY)
    return Diagnostic("not-pinned", f"the file pins {expectation.worker} to no GPU: {sees}", expectation.where, APPLY)


def _blind(case: Case) -> Iterator[Diagnostic]:
    worker, sight = case.expectation.worker, case.sight
    if sight.blind is not None:
        severity: Severity = "note" if "python" in sight.blind else "warning"
        by = "Docker's own account of it" if sight.listed is None else "nvidia-smi"
        yield Diagnostic(
            "not-seen",
            f"CUDA was not asked in {worker}, since {sight.blind}: its devices are known by {by}",
            case.expectation.where,
            "python3 in the image lets verify see what CUDA shows",
            severity,
        )
    capabilities = case.environment.get("NVIDIA_DRIVER_CAPABILITIES", "")
    if sight.listed is None and capabilities and not {"utility", "all"} & set(capabilities.split(",")):
        summary = f"{worker} has no nvidia-smi: NVIDIA_DRIVER_CAPABILITIES={capabilities} leaves out utility"
        yield Diagnostic("no-utility", summary, case.expectation.where, "let it name compute,utility", "note")


FRAMEWORK_HINTS = {
    "framework-silent": "import it by hand in the container; --no-frameworks asks CUDA alone",
    "framework-without-cuda": "put a build with CUDA into the image, if this worker is to use it",
    "framework-differs": "look for code or an entrypoint in the image that sets CUDA_VISIBLE_DEVICES",
}
"""What to do where a framework does not see what CUDA does, by code."""


def _frameworks(case: Case) -> Iterator[Diagnostic]:
    """Tell of frameworks that see something else than CUDA does; where CUDA is wrong already, nothing more."""
    if set(case.seen) != set(case.expected):
        return
    for framework in case.sight.frameworks:
        found = _framework(case, framework)
        if found is not None:
            code, text, severity = found
            name = FRAMEWORKS.get(framework.name, framework.name)
            summary = f"{case.expectation.worker}: {name} {text}"
            yield Diagnostic(code, summary, case.expectation.where, FRAMEWORK_HINTS[code], severity)


def _framework(case: Case, framework: Framework) -> tuple[str, str, Severity] | None:
    wanted = len(case.expected)
    if framework.count is None:
        return "framework-silent", f"could not be asked: {framework.error or 'no answer'}", "note"
    if framework.count != wanted:
        text = f"lists {framework.count} of {counted(wanted, 'GPU')}"
        if framework.gpu_build is False:
            return "framework-without-cuda", f"{text}: it is built without CUDA", "note"
        return "framework-differs", text, "error"
    uuids = None if framework.uuids is None else {case.machine.known(uuid) for uuid in framework.uuids}
    if uuids is not None and uuids != set(case.expected):
        return "framework-differs", f"lists {case.machine.label(case.machine.ordered(uuids))}", "error"
    return None
