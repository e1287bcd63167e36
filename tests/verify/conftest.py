from tests.cli.running import run
from tests.verify.standin import cuda_library

__all__ = ["cuda_library", "run"]
