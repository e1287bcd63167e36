"""``python -m gpualloc``."""

from gpualloc.cli import main

main()
