"""Following a machine: when its GPUs change, plan again, write, and run a command.

- :mod:`~gpualloc.watch.facts`, :mod:`~gpualloc.watch.settle`: what of a reading counts, and when it has held;
- :mod:`~gpualloc.watch.watcher`: the state machine, to which time and readings are given;
- :mod:`~gpualloc.watch.looker`, :mod:`~gpualloc.watch.command`, :mod:`~gpualloc.watch.site`,
  :mod:`~gpualloc.watch.metrics`: the machine, the command, the project, and Prometheus;
- :mod:`~gpualloc.watch.loop`: what connects them.
"""
