"""``quiet``, ``resume`` and ``stop``: orders to the instances that are meant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from async_tracker.cli.asking import agreed, must_be_able_to_ask
from async_tracker.cli.endings import Ending, Misused, NotFound
from async_tracker.cli.reach import reach
from async_tracker.cli.spans import seconds_of
from async_tracker.cli.tables import Table, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say_document, shown
from async_tracker.instance.host import host_id
from async_tracker.policy import InstanceState
from async_tracker.queries.wording import counted, matching, standing_remark
from async_tracker.records import Answer, Instance, OrderOutcome
from async_tracker.tracker import Tracker

_STANDS_FOR = "1h"
_WHOM = "say who is meant: an INSTANCE, --here, --label NAME, --queue NAME or --all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """Who is meant on the command line. Raises Misused unless it is one way of saying it."""

    instances: tuple[str, ...] = ()
    here: bool = False
    label: str | None = None
    queue: str | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        if bool(self.instances) + self.here + (self.label is not None) + (self.queue is not None) + self.everywhere != 1:
            raise Misused(_WHOM)

    @property
    def stands(self) -> bool:
        """Whether instances that register later are meant as well."""
        return self.queue is not None or self.everywhere

    def among(self, found: Sequence[Instance]) -> list[Instance]:
        """Choose those that are meant; the dead are not. Raises NotFound for a name that none has."""
        there = [item for item in found if item.state is not InstanceState.DEAD]
        if self.everywhere:
            return there
        if self.queue is not None:
            return [item for item in there if self.queue in (item.queue, *item.queues)]
        if self.here:
            return _some([item for item in there if item.host_id == host_id()], "no instance of this host is registered")
        if self.label is not None:
            return _some([item for item in there if item.label == self.label], f"no instance is labelled {shown(self.label)}")
        chosen: dict[str, Instance] = {}
        for name in self.instances:
            chosen |= {item.instance_id: item for item in _some(matching(there, name), f"no instance is called {shown(name)}")}
        return list(chosen.values())

    def must_be_confirmed(self, chosen: Sequence[Instance]) -> bool:
        """Tell whether a person should see who is meant first: whole queues, all, and a beginning that fits several."""
        return self.stands or len(chosen) > len(self.instances) > 0


def _some(found: list[Instance], missing: str) -> list[Instance]:
    if not found:
        raise NotFound(missing)
    return found


async def quiet(
    target: Target,
    *,
    meant: Mapping[str, Any],
    stands_for: str | None,
    cron: bool,
    wait: str | None,
    timeout: float,
    yes: bool,
) -> int:
    """Have instances take no more jobs, and with ``wait`` wait until nothing is in hand."""
    whom = Meant(**meant)
    if stands_for is not None and not whom.stands:
        raise Misused("--for is for --queue and --all: instances that are named stay quiet until async-tracker resume")
    seconds = seconds_of("--for", stands_for or _STANDS_FOR)
    async with reach(target) as tracker:
        chosen = await _chosen(tracker, target, "quiet", whom, yes=yes)
        if chosen is None:
            return Ending.OK
        if whom.stands:
            answers = await tracker.quiet(queue=whom.queue, everywhere=whom.everywhere, cron=cron, stands_for=seconds)
        else:
            answers = await tracker.quiet([item.instance_id for item in chosen], cron=cron)
        done = [answer.instance_id for answer in answers if answer.outcome is OrderOutcome.DONE]
        idle = await tracker.wait_until_idle(done, timeout) if wait is not None and done else []
        standing = await tracker.standing_orders() if whom.stands else []
    if target.as_json:
        say_document({"order": "quiet", "answers": answers, "idle": idle, "standing": standing})
    else:
        show(answers_table("quiet", answers))
        for answer in idle:
            if answer.outcome is not OrderOutcome.DONE:
                remark(f"{shown(answer.instance_id)}: {shown(answer.says)}")
        for order in standing:
            remark(shown(standing_remark(order)))
    late = [answer for answer in idle if answer.outcome not in (OrderOutcome.DONE, OrderOutcome.GONE)]
    return ending_of(answers) or (Ending.BAD_ANSWER if late else Ending.OK)


async def resume(target: Target, *, meant: Mapping[str, Any], yes: bool) -> int:
    """Have quiet instances take jobs again."""
    whom = Meant(**meant)
    async with reach(target) as tracker:
        chosen = await _chosen(tracker, target, "resume", whom, yes=yes)
        if chosen is None:
            return Ending.OK
        if whom.stands:
            answers = await tracker.resume(queue=whom.queue, everywhere=whom.everywhere)
        else:
            answers = await tracker.resume([item.instance_id for item in chosen])
        standing = await tracker.standing_orders()
    _tell(target, "resume", answers)
    for order in standing if not target.as_json else ():
        remark(shown(standing_remark(order)))
    return ending_of(answers)


async def stop(target: Target, *, meant: Mapping[str, Any], group: bool, yes: bool) -> int:
    """Have workers end in order."""
    whom = Meant(**meant)
    async with reach(target) as tracker:
        chosen = await _chosen(tracker, target, "stop", whom, yes=yes)
        if chosen is None:
            return Ending.OK
        if not chosen:
            raise NotFound("no instance is meant by that")
        answers = await tracker.stop([item.instance_id for item in chosen], group=group)
    _tell(target, "stop", answers)
    return ending_of(answers)


async def _chosen(tracker: Tracker, target: Target, command: str, meant: Meant, *, yes: bool) -> list[Instance] | None:
    """Find who is meant, and where many are let the person see them first; None where the person does not agree."""
    chosen = meant.among(await tracker.instances())
    if yes or not meant.must_be_confirmed(chosen):
        return chosen
    must_be_able_to_ask(command, target)
    rows = [(shown(item.instance_id), str(item.state), shown(item.queue), str(item.busy)) for item in chosen]
    show(Table(title=counted(len(rows), "instance"), columns=("INSTANCE", "STATE", "QUEUE", "BUSY"), rows=rows))
    return chosen if agreed(f"{command.capitalize()} {'this one' if len(rows) == 1 else f'these {len(rows)}'}?") else None


def _tell(target: Target, order: str, answers: Sequence[Answer]) -> None:
    if target.as_json:
        say_document({"order": order, "answers": answers})
    else:
        show(answers_table(order, answers))


def answers_table(order: str, answers: Sequence[Answer]) -> Table:
    """Lay out what each instance answered."""
    rows = [(shown(answer.instance_id), str(answer.outcome), shown(answer.says)) for answer in answers]
    return Table(title=f"{order}: {counted(len(rows), 'instance')}", columns=("INSTANCE", "OUTCOME", "WHAT CAME OF IT"), rows=rows)


def ending_of(answers: Sequence[Answer]) -> Ending:
    """Make an exit code of what the instances answered."""
    failed = [answer for answer in answers if answer.outcome is not OrderOutcome.DONE]
    if not failed:
        return Ending.OK
    if len(failed) < len(answers):
        return Ending.SOME_FAILED
    return Ending.NOT_FOUND if all(answer.outcome is OrderOutcome.NOT_FOUND for answer in failed) else Ending.BAD_ANSWER
