"""The app as processes of its own on one database, over real HTTP: where the point is that workers share nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from tests.support.postgres import TestDatabase
from tests.support.processes import START_SECONDS, free_port, wait_until

_SERVE = """
import os, sys, uvicorn
from audit_service.app import create_app
from audit_service.settings import Settings
app = create_app(Settings(database_url=os.environ["TEST_DATABASE"]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="on", ws="none")
"""


@contextmanager
def served(database: TestDatabase, count: int = 1, **settings: str) -> Iterator[list[str]]:
    """The URLs of as many answering processes, with settings as in the environment. They end with the block."""
    environment = os.environ | {"TEST_DATABASE": database.serving_url} | settings
    with ExitStack() as stack:
        urls = []
        for _ in range(count):
            port = free_port()
            process = subprocess.Popen([sys.executable, "-c", _SERVE, str(port)], env=environment)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            wait_until(lambda url=url: _answers(url), f"an answer from {url}", START_SECONDS)  # type: ignore[misc]
        yield urls


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
