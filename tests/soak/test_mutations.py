"""`make soak`: 10,000 random mutations of a log are all found, where they are, and 1,000 clean logs raise no alarm."""

from random import Random

import pytest

from audit_service.store.engine import Database
from tests.soak.test_soak import CYCLES
from tests.support.appends import existing_log, owner
from tests.support.mutations import clean_alarms, mutate, seed
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.tampering import Lab

MUTATIONS = 10_000
CLEAN_LOGS = 1_000
_AT_ONCE = 500

pytestmark = [pytest.mark.skipif(not CYCLES, reason="long: `make soak` runs it"), pytest.mark.timeout(0)]


async def test_ten_thousand_mutations_are_found_where_they_are(database: TestDatabase, pools: Database) -> None:
    random = Random(seed())  # noqa: S311 - chance that can be had again, no secret
    log = await existing_log(database, await default_log_id(database))
    async with owner(database) as admin:
        lab = await Lab.build(log, pools, admin)
        for done in range(0, MUTATIONS, _AT_ONCE):
            assert await mutate(lab, _AT_ONCE, random) == ([], [])
            print(f"{done + _AT_ONCE} mutations, all found", flush=True)  # noqa: T201 - what a soak shows


async def test_a_thousand_clean_logs_raise_no_alarm(database: TestDatabase, pools: Database) -> None:
    random = Random(seed())  # noqa: S311 - as above
    async with owner(database) as admin:
        for done in range(0, CLEAN_LOGS, _AT_ONCE):
            assert await clean_alarms(database, pools, admin, _AT_ONCE, random) == []
            print(f"{done + _AT_ONCE} clean logs, no alarm", flush=True)  # noqa: T201 - as above
