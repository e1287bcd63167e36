"""Decides which GPUs each worker of a Docker Compose project gets, and writes that into the compose file."""

__version__ = "0.1.0"
