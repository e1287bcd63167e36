"""Check the worker that this runs in; exit 1 if it does not see exactly its GPUs."""

import sys

from gpualloc_check.check import AllocationError, check_allocation, describe

try:
    print(describe(check_allocation()))
except AllocationError as error:
    sys.exit(str(error))
