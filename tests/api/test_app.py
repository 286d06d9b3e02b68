"""`OpenAgentsApp`: the manager's methods, jobs that start by themselves, and life inside a web application."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from openagents_json import OpenAgentsApp
from openagents_json.errors import JobNotFoundError, ManagerStoppedError
from openagents_json.job import Job, JobContext, JobManager, WaitReason
from openagents_json.job.storage import MemoryJobStore

pytestmark = pytest.mark.timeout(15)

#: What only a manager has: it is for subclasses, and for those who look closer.
MANAGER_ONLY = {"execute_job", "max_concurrent_jobs", "retention_days"}


def _public(class_: type) -> dict[str, Any]:
    return {name: getattr(class_, name) for name in dir(class_) if not name.startswith("_")}


SHARED = sorted(set(_public(JobManager)) - MANAGER_ONLY)


def test_the_app_has_every_job_method_of_the_manager() -> None:
    assert set(SHARED) - set(_public(OpenAgentsApp)) == set()


def test_what_only_a_manager_has_is_known() -> None:
    assert set(_public(JobManager)) - set(_public(OpenAgentsApp)) == MANAGER_ONLY
    assert set(_public(OpenAgentsApp)) - set(_public(JobManager)) == {
        "events",
        "lifespan",
    }  # events: an attribute there


@pytest.mark.parametrize("name", SHARED)
def test_a_method_of_the_app_is_called_like_the_managers(name: str) -> None:
    of_app, of_manager = getattr(OpenAgentsApp, name), getattr(JobManager, name)
    if isinstance(of_manager, property):
        assert isinstance(of_app, property)
        return
    assert inspect.iscoroutinefunction(of_app) == inspect.iscoroutinefunction(of_manager)
    ours, theirs = inspect.signature(of_app), inspect.signature(of_manager)
    if name == "create_job_batch":
        assert (ours.parameters["auto_start"].default, theirs.parameters["auto_start"].default) == (True, False)
        ours = ours.replace(parameters=[p.replace(default=None) for p in ours.parameters.values()])
        theirs = theirs.replace(parameters=[p.replace(default=None) for p in theirs.parameters.values()])
    assert ours == theirs


def test_the_app_is_made_like_a_manager() -> None:
    assert inspect.signature(OpenAgentsApp) == inspect.signature(JobManager)


async def test_constructor_arguments_reach_the_manager() -> None:
    store = MemoryJobStore()
    app = OpenAgentsApp(store, retention_days=3, max_concurrent_jobs=2)
    assert app.job_manager.job_store is store
    assert (app.job_manager.retention_days, app.job_manager.max_concurrent_jobs) == (3, 2)
    assert app.events is app.job_manager.events
    assert repr(app.job_manager) in repr(app)


async def test_jobs_start_by_themselves_unless_told_otherwise(app: OpenAgentsApp) -> None:
    started = await app.create_job("nobody handles it")
    assert started.wait_reason is WaitReason.WORKER
    held = await app.create_job("nobody handles it", auto_start=False)
    assert held.wait_reason is WaitReason.START
    _, batch = await app.create_job_batch([{"name": "x"}, {"name": "x", "auto_start": False}])
    assert [job.wait_reason for job in batch] == [WaitReason.WORKER, WaitReason.START]
    _, batch = await app.create_job_batch([{"name": "x"}, {"name": "x", "auto_start": True}], auto_start=False)
    assert [job.wait_reason for job in batch] == [WaitReason.START, WaitReason.WORKER]


async def test_jobs_of_a_manager_wait_to_be_started(manager: JobManager) -> None:
    assert (await manager.create_job("x")).wait_reason is WaitReason.START
    assert (await manager.create_job("x", auto_start=True)).wait_reason is WaitReason.WORKER
    _, batch = await manager.create_job_batch([{"name": "x"}, {"name": "x", "auto_start": True}])
    assert [job.wait_reason for job in batch] == [WaitReason.START, WaitReason.WORKER]


async def test_the_life_of_jobs_through_the_app(app: OpenAgentsApp) -> None:
    @app.handler("add")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    @app.handler
    def shout(text: str, context: JobContext) -> str:
        return f"{text.upper()}! ({context.attempt})"

    app.register_handler("sub", lambda numbers: numbers[0] - numbers[1])

    assert await app.run_job("add", payload=[1, 2, 3]) == 6
    assert await app.run_job("sub", payload=[5, 3]) == 2
    job = await app.create_job(name="shout", payload="hey")
    done = await app.wait_for_job(job["job_id"], timeout=10)
    assert (await app.get_job(job.job_id)).result == done.result
    assert await app.get_job_status(job["job_id"]) == "completed"
    assert await app.get_job_results(job["job_id"]) == "HEY! (1)"
    assert await app.count_jobs() == len(await app.list_jobs()) == 3

    held = await app.create_job("add", payload=[1], auto_start=False)
    other = await app.create_job("add", payload=[1], auto_start=False)
    assert (await app.add_job_dependency(job_id=other.job_id, depends_on_id=held.job_id)).dependencies == (held.job_id,)
    assert [job.job_id for job in await app.get_dependencies(other.job_id)] == [held.job_id]
    assert [job.job_id for job in await app.get_dependent_jobs(held.job_id)] == [other.job_id]
    assert (await app.remove_job_dependency(job_id=other.job_id, depends_on_id=held.job_id)).dependencies == ()
    assert (await app.pause_job(held.job_id)).status == "paused"
    assert (await app.resume_job(held.job_id)).status == "pending"
    assert (await app.cancel_job(held.job_id, "not needed")).status == "cancelled"
    assert (await app.retry_job(held.job_id)).status in {"pending", "running"}
    assert (await app.wait_for_job(held.job_id, 10)).result == 1
    assert (await app.start_job(other.job_id)).status in {"pending", "running"}
    assert (await app.wait_for_job(other.job_id, 10)).result == 1
    batch_id, _ = await app.create_job_batch([{"name": "add", "payload": [2]}])
    assert [(await app.wait_for_job(job.job_id, 10)).result for job in await app.get_batch_jobs(batch_id)] == [2]
    assert await app.delete_job(held.job_id) is True
    assert await app.delete_job(held.job_id) is False
    assert await app.recover_interrupted_jobs() == []
    assert await app.cleanup_old_jobs() == 0


async def test_an_app_that_was_stopped_says_so_and_can_start_again() -> None:
    app = OpenAgentsApp(MemoryJobStore())
    async with app:
        job = await app.create_job("x")
    with pytest.raises(ManagerStoppedError, match="stopped; start"):
        await app.get_job(job.job_id)
    async with app:
        assert (await app.get_job(job.job_id)).job_id == job.job_id


# inside a web application


def make_jobs() -> OpenAgentsApp:
    """Make an app with two handlers."""
    jobs = OpenAgentsApp(shutdown_timeout=1)

    @jobs.handler("greet")
    async def greet(payload: dict[str, str]) -> str:
        return f"Hello, {payload['name']}!"

    @jobs.handler("fail")
    async def fail() -> None:
        msg = "no luck"
        raise ValueError(msg)

    return jobs


def make_fastapi(jobs: OpenAgentsApp) -> FastAPI:
    """Make a web application with endpoints that create jobs and read them."""
    web = FastAPI(lifespan=jobs.lifespan)

    @web.post("/greetings/{name}", status_code=202)
    async def create(name: str) -> dict[str, str]:
        job = await jobs.create_job("greet", payload={"name": name})
        return {"job_id": job.job_id}

    @web.get("/jobs/{job_id}")
    async def read(job_id: str) -> Job:
        try:
            return await jobs.get_job(job_id)
        except JobNotFoundError as exc:
            raise HTTPException(404, str(exc)) from exc

    @web.get("/jobs/{job_id}/result")
    async def result(job_id: str) -> dict[str, Any]:
        job = await jobs.wait_for_job(job_id, timeout=10)
        return {"status": job.status, "result": job.result}

    @web.post("/failures")
    async def failure() -> dict[str, Any]:
        job = await jobs.create_job("fail")
        return (await jobs.wait_for_job(job.job_id, timeout=10)).to_dict()

    return web


@asynccontextmanager
async def client_of(web: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Start a web application, and talk to it."""
    async with (
        LifespanManager(web) as manager,
        httpx.AsyncClient(transport=httpx.ASGITransport(manager.app), base_url="http://test") as client,
    ):
        yield client


async def test_endpoints_of_a_fastapi_application_create_jobs_and_return_their_results() -> None:
    jobs = make_jobs()
    async with client_of(make_fastapi(jobs)) as client:
        created = await client.post("/greetings/Ada")
        assert created.status_code == 202
        job_id = created.json()["job_id"]
        result = await client.get(f"/jobs/{job_id}/result")
        assert result.json() == {"status": "completed", "result": "Hello, Ada!"}
        read = (await client.get(f"/jobs/{job_id}")).json()
        assert (read["job_id"], read["status"], read["payload"]) == (job_id, "completed", {"name": "Ada"})
        assert (await client.get("/jobs/nobody")).status_code == 404
        failed = (await client.post("/failures")).json()
        assert failed["status"] == "failed"
        assert failed["error"]["type"] == "ValueError"
        assert Job.from_dict(failed).error == await _error_of(jobs, failed["job_id"])
    with pytest.raises(ManagerStoppedError):
        await jobs.count_jobs()


async def _error_of(jobs: OpenAgentsApp, job_id: str) -> object:
    return (await jobs.get_job(job_id)).error


async def test_a_job_is_described_in_the_openapi_schema_of_an_application() -> None:
    schema = make_fastapi(make_jobs()).openapi()
    assert "wait_reason" in schema["components"]["schemas"]["Job"]["properties"]


async def test_endpoints_of_a_starlette_application_create_jobs_and_follow_their_events() -> None:
    jobs = make_jobs()

    async def create(request: Request) -> JSONResponse:
        job = await jobs.create_job("greet", payload=await request.json())
        return JSONResponse(job.to_dict(), status_code=202)

    async def follow(request: Request) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async for event in jobs.events.stream(request.path_params["job_id"]):
                yield f"{event.type}\n"

        return StreamingResponse(lines(), media_type="text/plain")

    routes = [Route("/jobs", create, methods=["POST"]), Route("/jobs/{job_id}/events", follow)]
    web = Starlette(routes=routes, lifespan=jobs.lifespan)
    async with client_of(web) as client:
        created = (await client.post("/jobs", json={"name": "Grace"})).json()
        assert created["status"] == "pending"
        events = await client.get(f"/jobs/{created['job_id']}/events")
        assert events.text.splitlines()[-1] == "completed"
        assert await jobs.get_job_results(created["job_id"]) == "Hello, Grace!"


async def test_lifespan_can_be_part_of_an_applications_own() -> None:
    jobs = make_jobs()
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(web: Starlette) -> AsyncIterator[None]:
        async with jobs.lifespan(web):
            happened.append(await jobs.run_job("greet", payload={"name": "start"}))
            yield
            happened.append(await jobs.run_job("greet", payload={"name": "end"}))

    async with LifespanManager(Starlette(lifespan=lifespan)):
        assert happened == ["Hello, start!"]
    assert happened == ["Hello, start!", "Hello, end!"]


async def test_jobs_that_still_run_when_an_application_ends_are_put_back() -> None:
    store = MemoryJobStore()
    jobs = OpenAgentsApp(store, shutdown_timeout=0)

    running = asyncio.Event()

    @jobs.handler("forever")
    async def forever() -> None:
        running.set()
        await asyncio.Event().wait()

    async with LifespanManager(Starlette(lifespan=jobs.lifespan)):
        job = await jobs.create_job("forever")
        await running.wait()
    async with OpenAgentsApp(store, run_jobs=False) as viewer:
        again = await viewer.get_job(job.job_id)
        assert (again.status, again.retry_count) == ("pending", 0)
        assert len(again.metadata["recovery_history"]) == 1


def test_one_app_serves_event_loops_one_after_the_other() -> None:
    web = make_fastapi(make_jobs())

    async def greet(name: str) -> object:
        async with client_of(web) as client:
            job_id = (await client.post(f"/greetings/{name}")).json()["job_id"]
            return (await client.get(f"/jobs/{job_id}/result")).json()["result"]

    for name in ("Ada", "Grace", "Barbara"):
        assert asyncio.run(greet(name)) == f"Hello, {name}!"
