"""A project for several hosts: as a stack for Docker Swarm, or as a file for each host.

``source`` reads all of a project with everything in it resolved; ``services``, ``shapes`` and ``top`` turn that into
what ``docker stack deploy`` takes, with ``notes`` on every key that it does not; ``stack`` puts the workers on their
nodes; ``hosts`` writes a file for each host instead; ``record`` reads either back as the previous placement.
"""
