from tests.cli.running import run
from tests.fleet.fake_ssh import fake_ssh

__all__ = ["fake_ssh", "run"]
