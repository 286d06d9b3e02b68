"""Values as deep as any may be, in a commit they share with others."""

import shutil
from pathlib import Path

from openagents_json.job import JobManager
from openagents_json.job.storage import FileJobStore

DEEPEST = 150


def nested(levels: int) -> object:
    value: object = 0
    for _ in range(levels):
        value = [value]
    return value


async def test_the_deepest_values_are_read_back_from_the_journal_and_from_their_files(tmp_path: Path) -> None:
    kept, died = tmp_path / "kept", tmp_path / "as it was when it died"
    async with JobManager(FileJobStore(kept), run_jobs=False) as manager:
        _, jobs = await manager.create_job_batch([
            {"name": "deep", "payload": nested(DEEPEST), "metadata": {"deep": nested(DEEPEST - 1)}},
            {"name": "beside it"},
        ])  # fmt: skip
        shutil.copytree(kept, died)
    for place in (kept, died):
        store = FileJobStore(place)
        async with JobManager(store, run_jobs=False) as manager:
            assert store.set_aside == ()
            assert [await manager.get_job(job.job_id) for job in jobs] == jobs
