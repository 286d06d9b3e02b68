"""A hundred thousand jobs are opened, with news of how it goes; how long it takes is `benchmarks/files.py`'s."""

import logging
from pathlib import Path

import pytest

from openagents_json.job._changes import Query
from openagents_json.testing import a_job, adding
from tests.files._tools import opened

MANY = 100_000
AT_ONCE = 10_000


@pytest.mark.timeout(170)  # seconds, as a rule; this is for a machine that has much else to do
async def test_a_hundred_thousand_jobs_are_opened_with_news_of_how_it_goes(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = place / "jobs here"
    async with opened(directory) as driver:
        for begin in range(0, MANY, AT_ONCE):
            await driver.store.apply([adding(*(a_job(f"job-{number:06}") for number in range(begin, begin + AT_ONCE)))])
    with caplog.at_level(logging.INFO):
        async with opened(directory, read_only=True) as driver:
            assert await driver.store.count(Query()) == MANY
            first = Query(descending=False, limit=2)
            assert await driver.find(first) == ["job-000000", "job-000001"]
    news = [record.getMessage() for record in caplog.records if "job files in" in record.getMessage()]
    assert news == [f"read {done:,} of {MANY:,} job files in {directory}/jobs" for done in range(10_000, MANY, 10_000)]


async def test_few_jobs_are_opened_without_a_word(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(directory) as driver:
        await driver.add(*(a_job(f"job-{number}") for number in range(100)))
    with caplog.at_level(logging.INFO):
        async with opened(directory):
            pass
    assert [record for record in caplog.records if record.name.startswith("openagents_json")] == []
