"""Fleets: more hosts than are worth modelling one by one.

- :mod:`~gpualloc.solve.fleet.fill`: a plan at once, in time that grows with workers and devices, not with their
  product; :mod:`~gpualloc.solve.fleet.links`: hosts that are linked alike;
- :mod:`~gpualloc.solve.fleet.stock`: what is left once those who stay at home are there, as classes of devices and
  hosts;
- :mod:`~gpualloc.solve.fleet.price`, :mod:`~gpualloc.solve.fleet.master`: patterns generated as they are needed
  (Gilmore and Gomory, 1961: a master program over the patterns found, a knapsack that finds the next), its value a
  bound that no plan beats, then whole numbers over the patterns found;
- :mod:`~gpualloc.solve.fleet.plan`: the tiers in order, each with its bound.
"""
