"""What a process in this container sees of the GPUs, as one line of JSON. Judges nothing.

Fed to the container's own Python on standard input, so it needs the standard library alone, of Python 3.7 or later:

    docker exec -i CONTAINER python3 - SECONDS [--own-environment] [--no-frameworks] <probe.py

Everything that touches CUDA runs in a process of its own: a crash or a hang in one is an answer like any other, and
nothing of it stays behind. No context is created and no memory of a device is taken on purpose, since a worker may be
using all of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as type checkers know it: importing typing would take longer than asking CUDA
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MARK = "gpualloc-probe:"
"""What the answer's line starts with: whatever Python runs at its start may print lines of its own."""

INHERITED = ("CUDA_", "NVIDIA_")
"""Variables that are taken over from process 1, whose entry point may have set them."""


def main() -> None:
    """Ask everything at once, and print what has been answered when the time is over."""
    deadline = time.monotonic() + float(sys.argv[1])
    if "--own-environment" not in sys.argv:
        inherit()
    asked: dict[str, Callable[[], dict[str, Any]]] = {"cuda": cuda, "nvidia_smi": nvidia_smi}
    if "--no-frameworks" not in sys.argv:
        asked.update((name, ask) for name, ask in FRAMEWORKS.items() if installed(name))
    children = {name: Child(ask) for name, ask in asked.items()}
    answers: dict[str, Any] = {name: children.pop(name).answer(deadline) for name in ("cuda", "nvidia_smi")}
    answers["frameworks"] = {name: child.answer(deadline) for name, child in children.items()}
    answers.update(environment=environment(), wsl=os.path.exists("/dev/dxg"))  # noqa: PTH110 - one import less
    print(MARK + json.dumps(answers))  # noqa: T201 - this is the answer


def inherit() -> None:
    """Take over the variables that matter from process 1: those of ``docker exec`` are the container's, not its."""
    try:
        with open("/proc/1/environ", "rb") as file:  # noqa: PTH123 - one import less
            entries = [os.fsdecode(entry) for entry in file.read().split(b"\0")]
    except OSError:  # process 1 runs as another user
        return
    for name in [name for name in os.environ if name.startswith(INHERITED)]:
        del os.environ[name]
    # the last one counts: the engine puts its own NVIDIA_VISIBLE_DEVICES after the user's
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals and name.startswith(INHERITED):
            os.environ[name] = value


def environment() -> dict[str, str]:
    """Return the variables that matter, as they are for the worker."""
    return {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}


class Child:
    """A question that is answered in a process of its own."""

    def __init__(self, ask: Callable[[], dict[str, Any]]) -> None:
        """Start it."""
        self.pipe, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        try:
            os.close(self.pipe)
            os.dup2(2, 1)  # what a framework prints must not stand in the answer
            try:
                answer = ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(write, json.dumps(answer).encode())
        finally:
            os._exit(0)

    def answer(self, deadline: float) -> dict[str, Any]:
        """Return what it answered by the deadline; after that it is ended."""
        data = b""
        while True:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self.pipe, 65536) if ready else b""
            if not part:
                break
            data += part
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            return {"error": "no answer in time"}  # not waited for: a driver that hangs cannot be killed
        _, status = os.waitpid(self.pid, 0)
        if data:
            answer: dict[str, Any] = json.loads(data.decode())
            return answer
        return {"error": f"it crashed with signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it ended"}


# --------------------------------------------------------------------------------------------------------------------
# What is asked


class Uuid(ctypes.Structure):
    """CUuuid of cuda.h."""

    _fields_ = (("bytes", ctypes.c_ubyte * 16),)


def cuda() -> dict[str, Any]:
    """Return the devices that CUDA's driver API shows, in its order: UUIDs without prefix."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"loaded": False, "devices": [], "error": str(error)}

    def call(name: str, *arguments: Any) -> None:
        code = getattr(library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            library.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'error').decode()} ({code})")

    devices = []
    try:
        call("cuInit", 0)
        count, handle, identity = ctypes.c_int(), ctypes.c_int(), Uuid()
        call("cuDeviceGetCount", ctypes.byref(count))
        # the second version names the MIG instance, where the first names the whole GPU; CUDA 11.4 and later have it
        newest = "cuDeviceGetUuid_v2" if hasattr(library, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
        for ordinal in range(count.value):
            call("cuDeviceGet", ctypes.byref(handle), ordinal)
            call(newest, ctypes.byref(identity), handle)
            devices.append(bytes(identity.bytes).hex())
    except RuntimeError as error:
        return {"loaded": True, "devices": devices, "error": str(error)}
    return {"loaded": True, "devices": devices, "error": None}


def nvidia_smi() -> dict[str, Any]:
    """Return what ``nvidia-smi -L`` prints: everything in the container, whatever CUDA_VISIBLE_DEVICES says.

    It is there only with the driver capability "utility".
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        os.dup2(write, 2)
        try:
            os.execvp("nvidia-smi", ["nvidia-smi", "-L"])  # noqa: S606, S607 - no shell; wherever the image has it
        except OSError as error:
            os.write(write, str(error).encode())
        os._exit(127)
    os.close(write)
    text = b""
    while True:
        part = os.read(read, 65536)
        if not part:
            break
        text += part
    _, status = os.waitpid(pid, 0)
    return {"error" if status else "text": text.decode("utf-8", "replace")}


def installed(name: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def ask_torch() -> dict[str, Any]:
    """Return what PyTorch lists. Its UUIDs came with version 2.4."""
    torch = importlib.import_module("torch")

    count = torch.cuda.device_count()
    found = [getattr(torch.cuda.get_device_properties(number), "uuid", None) for number in range(count)]
    uuids = None if None in found else [str(uuid) for uuid in found]
    return {"version": torch.__version__, "gpu_build": torch.version.cuda is not None, "count": count, "uuids": uuids}


def ask_tensorflow() -> dict[str, Any]:
    """Return what TensorFlow lists; physical devices, since logical ones would take their memory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors: they say why a GPU was passed over
    tf = importlib.import_module("tensorflow")

    count = len(tf.config.list_physical_devices("GPU"))
    return {"version": tf.__version__, "gpu_build": tf.test.is_built_with_cuda(), "count": count}


def ask_jax() -> dict[str, Any]:
    """Return what JAX lists, told not to take the devices' memory."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    jax = importlib.import_module("jax")

    plugins = importlib.util.find_spec("jax_plugins")
    folders = plugins.submodule_search_locations if plugins else None
    names = [name for folder in folders or () for name in os.listdir(folder)]  # noqa: PTH208 - one import less
    built = True if any(name.startswith("xla_cuda") for name in names) else None
    count = sum(device.platform in {"gpu", "cuda"} for device in jax.local_devices())
    return {"version": jax.__version__, "gpu_build": built, "count": count}


FRAMEWORKS: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": ask_torch,
    "tensorflow": ask_tensorflow,
    "jax": ask_jax,
}


if __name__ == "__main__":
    main()
