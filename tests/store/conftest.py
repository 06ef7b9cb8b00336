"""A log to tamper with, one for each module that asks for it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.appends import existing_log, owner
from tests.support.postgres import Server, default_log_id
from tests.support.tampering import SIZE, Lab, is_clean


@pytest.fixture(scope="module")
async def built(server: Server) -> AsyncIterator[Lab]:
    """One log for the module."""
    database = await server.create()
    log = await existing_log(database, await default_log_id(database))
    pools = database.open()
    async with owner(database) as admin:
        yield await Lab.build(log, pools, admin)
    await pools.dispose()
    await server.drop(database)


@pytest.fixture
async def lab(built: Lab) -> AsyncIterator[Lab]:
    """The log as it was; after the test it is restored, and must verify again."""
    yield built
    await built.restore()
    assert await is_clean(built)
    await built.log.assert_intact(SIZE)
