"""The queue of jobs: none is made that nobody is given."""

import asyncio

from lab.traffic.broker import Broker
from lab.traffic.cancelling import cancel_all


async def made_when_the_making_ends_at_its_worst() -> Broker:
    """Somebody asks for a job just then, so that an offer has to wait for its turn, and is cancelled there."""
    broker = Broker(jobs_per_second=1000.0, work_ms=1)
    async with broker._news:
        making = asyncio.create_task(broker.make_jobs())
        while not broker.jobs:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0)
        await cancel_all([making])
    return broker


def test_a_job_that_is_made_is_offered_even_if_no_more_are_made() -> None:
    broker = asyncio.run(made_when_the_making_ends_at_its_worst())
    assert [job.id for job in broker._ready] == list(broker.jobs)
