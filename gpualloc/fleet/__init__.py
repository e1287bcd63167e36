"""Plans over several hosts, written down: as a stack for Docker Swarm, or as a file for each host."""
