"""SIGKILL, at random and at chosen moments: nothing is lost, and nobody runs a job that another still runs."""

from tests.crash.fleet import Fleet


async def test_a_killed_workers_jobs_run_again_elsewhere_once(fleet: Fleet):
    await fleet.start_ready(2)
    jobs = await fleet.enqueue_many(6, "hold", 2.0)
    victim = await fleet.running(jobs[0])
    for job_id in jobs:
        await fleet.running(job_id)
    victim.kill()
    account = await fleet.succeeded()
    again = [run for run in account.runs if run.attempt == 2]
    assert again
    assert victim.pid not in {run.pid for run in again}
    await fleet.close()
