"""``doctor``: what is missing, and what to do about it."""

from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import reach, redis_of
from async_tracker.cli.tables import Table, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import say, say_document, shown
from async_tracker.doctor.examination import examine
from async_tracker.doctor.findings import Finding, Status
from async_tracker.queries.wording import counted


async def doctor(target: Target, *, user: str | None) -> int:
    """Examine everything and print it; a bad answer where one of the findings is a problem."""
    async with reach(target) as tracker:
        findings = await examine(tracker, user=user)
        url = await redis_of(tracker)
    is_healthy = all(finding.status is not Status.PROBLEM for finding in findings)
    if target.as_json:
        say_document({"healthy": is_healthy, "redis": url, "namespace": tracker.namespace, "findings": findings})
    else:
        _print(findings)
    return Ending.OK if is_healthy else Ending.BAD_ANSWER


def _print(findings: list[Finding]) -> None:
    rows = [(str(item.status), shown(item.subject), shown(item.says)) for item in findings]
    show(Table(title="What was found", columns=("STATUS", "SUBJECT", "FINDING"), rows=rows))
    for item in findings:
        if item.remedy:
            say(f"{shown(item.subject)}: {shown(item.remedy)}")
    problems = sum(item.status is Status.PROBLEM for item in findings)
    warnings = sum(item.status is Status.WARNING for item in findings)
    say(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
