"""What a process of this worker sees, as one line of JSON on stdout. Judges nothing: see check.py.

Run as a process of its own, so that nothing of CUDA or TensorFlow stays behind in an Airflow worker, and a crash in
either is a failed check rather than a lost task. Needs the standard library alone; a missing TensorFlow is reported.

    python probe.py [--stand-in N]

With --stand-in, N logical CPU devices take the GPUs' place in TensorFlow, to rehearse where there is no GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from typing import Any

MATRIX = 1024
"""Side of the matrices multiplied on each device: 12 MiB for the three of them."""


def main() -> None:
    """Print what is seen."""
    parser = argparse.ArgumentParser(description="What this process sees of the GPUs, as JSON.")
    parser.add_argument("--stand-in", type=int, default=0, metavar="N", help="N logical CPU devices instead of GPUs")
    stand_in = parser.parse_args().stand_in
    # CUDA first: TensorFlow then numbers its GPUs as CUDA numbers them in this very process.
    seen = {"cuda": cuda_devices(), "container": container_gpus(), "tensorflow": tensorflow_devices(stand_in)}
    print(json.dumps(seen))


class CudaError(Exception):
    """A call into libcuda that did not succeed."""


class Cuda:
    """The few calls of CUDA's driver API that tell one device from another (cuda.h; none creates a context)."""

    def __init__(self) -> None:
        """Load the driver's library, which the container toolkit puts into the container, and initialise it."""
        try:
            self.lib = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(f"no NVIDIA driver library: {error}") from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a CUresult; raise CudaError unless it is CUDA_SUCCESS (0)."""
        code = getattr(self.lib, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.lib.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'error').decode()} ({code})")

    def count(self) -> int:
        """Return how many devices CUDA shows to this process, after CUDA_VISIBLE_DEVICES."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def device(self, ordinal: int) -> dict[str, Any]:
        """Return the facts of one device; the UUID has no prefix, since CUDA gives sixteen bytes."""
        handle, memory, name, identity = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256), _Uuid()
        self.call("cuDeviceGet", ctypes.byref(handle), ordinal)
        self.call("cuDeviceGetName", name, len(name), handle)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        # The second version names the MIG instance, where the first names the whole GPU; CUDA 11.4 and later have it.
        newest = "cuDeviceGetUuid_v2" if hasattr(self.lib, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
        self.call(newest, ctypes.byref(identity), handle)
        return {
            "uuid": str(uuid.UUID(bytes=bytes(identity.bytes))),
            "name": name.value.decode(),
            "memory_mib": memory.value >> 20,
        }


class _Uuid(ctypes.Structure):
    """CUuuid of cuda.h."""

    _fields_ = (("bytes", ctypes.c_ubyte * 16),)


def cuda_devices() -> dict[str, Any]:
    """Return the devices that CUDA shows to this process, in CUDA's order, or why there are none."""
    try:
        cuda = Cuda()
        return {"loaded": True, "devices": [cuda.device(ordinal) for ordinal in range(cuda.count())], "error": None}
    except CudaError as error:
        # A driver that is there but shows no device (CUDA_ERROR_NO_DEVICE) is not the same as no driver.
        return {"loaded": not str(error).startswith("no NVIDIA driver"), "devices": [], "error": str(error)}


def container_gpus() -> list[str] | None:
    """Return the UUIDs of the GPUs (and MIG instances) in the container, whatever CUDA_VISIBLE_DEVICES says.

    None where nvidia-smi is not there or fails: it comes with the driver capability "utility".
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    try:
        listing = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # used for the likely cause of a difference only
    return re.findall(r"\(UUID: (?:GPU|MIG)-([0-9a-f-]+)\)", listing)


def tensorflow_devices(stand_in: int) -> dict[str, Any]:
    """Return the devices that TensorFlow lists, each with the outcome of a matrix product on it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors: they say why a GPU was passed over
    try:
        import tensorflow as tf
    except ImportError as error:
        return {"version": None, "cuda_build": None, "devices": [], "error": f"TensorFlow cannot be imported: {error}"}
    return listed(tf, stand_in)


def listed(tf: Any, stand_in: int) -> dict[str, Any]:
    """Return what the module TensorFlow answers; see tensorflow_devices."""
    facts: dict[str, Any] = {"version": tf.__version__, "cuda_build": tf.test.is_built_with_cuda(), "error": None}
    kind = "CPU" if stand_in else "GPU"
    physical = tf.config.list_physical_devices(kind)
    details: list[dict[str, Any]] = [{} for _ in range(stand_in)]
    if stand_in:
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(stand_in)]
        tf.config.set_logical_device_configuration(physical[0], parts)
    else:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in physical]
        for gpu in physical:
            # Without this TensorFlow takes all memory of the device, which other workers may be using.
            tf.config.experimental.set_memory_growth(gpu, enable=True)
    tf.config.set_soft_device_placement(False)  # an operation that cannot run on its device fails
    try:
        usable = [device.name for device in tf.config.list_logical_devices(kind)]
    except (tf.errors.OpError, RuntimeError) as error:
        usable, facts["error"] = [], f"TensorFlow cannot initialise its devices: {error}"
    facts["devices"] = [
        {
            "name": f"/device:{kind}:{ordinal}",
            "model": detail.get("device_name"),
            "compute_capability": ".".join(str(part) for part in detail.get("compute_capability", ())) or None,
            # Physical but not logical: TensorFlow lists the device and will not use it.
            **(multiply(tf, usable[ordinal]) if ordinal < len(usable) else {"seconds": None, "error": "not usable"}),
        }
        for ordinal, detail in enumerate(details)
    ]
    return facts


def multiply(tf: Any, device: str) -> dict[str, Any]:
    """Multiply two matrices on the device and compare with the CPU; return the seconds it took, or what went wrong.

    The entries are integers below 8, so that every product and sum is exact in TF32 and FP32 alike.
    """
    import numpy as np

    matrix = np.arange(MATRIX * MATRIX).reshape(MATRIX, MATRIX) % 7
    # In double precision, which is exact here as well and, unlike integers, is multiplied by BLAS.
    right = matrix.astype(np.float64) @ matrix.astype(np.float64)
    start = time.perf_counter()
    try:
        with tf.device(device):
            operand = tf.constant(matrix, dtype=tf.float32)
            product = tf.matmul(operand, operand)
        values = product.numpy()
    except (tf.errors.OpError, RuntimeError) as error:
        return {"seconds": None, "error": f"matrix product: {error}"}
    seconds = round(time.perf_counter() - start, 4)
    if not product.device.endswith(device):
        return {"seconds": seconds, "error": f"the matrix product ran on {product.device}"}
    if not np.array_equal(values, right):
        return {"seconds": seconds, "error": "the matrix product is wrong"}
    return {"seconds": seconds, "error": None}


if __name__ == "__main__":
    main()
