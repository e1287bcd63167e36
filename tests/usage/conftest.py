from tests.cli.running import run
from tests.faults.bench import bench
from tests.nvml.fixtures import fake_nvml, nvml_library

__all__ = ["bench", "fake_nvml", "nvml_library", "run"]
