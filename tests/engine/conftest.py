from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.running import CannotStartError, Engine, obstacle
from tests.engine.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine of the session's own; skips where none can run."""
    why = obstacle()
    if why is not None:
        pytest.skip(why)
    try:
        started = Engine.start()
    except CannotStartError as error:
        pytest.skip(f"the engine does not start: {error}")
    yield started
    started.stop()


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Iterator[Site]:
    """A project in the test's folder, on the engine; its containers go with the test."""
    here = Site(engine, tmp_path)
    yield here
    here.down()
