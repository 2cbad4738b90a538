"""The commands, their options and their help, with click alone. What a command does is loaded when it runs."""

import functools
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from async_tracker import __version__
from async_tracker.cli.endings import Ending
from async_tracker.cli.streams import let_go
from async_tracker.cli.target import Target
from async_tracker.integrations.known import KNOWN, redis_option, redis_option_help

_LONGEST = 315_360_000
"""Seconds, as of the settings."""

_EPILOG = (
    "Exit codes: 0 ok, 1 the answer is bad or cannot be written, or Redis refuses, 2 usage, 3 Redis cannot be reached, 4 not found, "
    "5 some of many failed, 130 interrupted. "
    "Without options the Redis is TRACKER_REDIS_URL, then REDIS_URL, then redis://localhost:6379/0."
)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = program.main(arguments, prog_name="async-tracker", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as exc:
        if type(exc).__name__ == "NoArgsIsHelpError":  # of newer versions of click alone: its message is the help
            exc.show()
            return Ending.USAGE
        return _ended(_what_to_write(exc), Ending.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _ended("interrupted", Ending.INTERRUPTED)
    except BrokenPipeError:  # of help, or the version
        let_go()
        return Ending.OK
    except OSError as exc:
        let_go()
        return _ended(f"the answer cannot be written: {exc.strerror or exc}", Ending.BAD_ANSWER)
    return code if isinstance(code, int) else Ending.OK


def _what_to_write(exc: click.ClickException) -> str:
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "async-tracker"
    return f"{exc.format_message()} (see {path} --help)"


def _ended(why: str, ending: Ending) -> Ending:
    with suppress(OSError):  # then the exit code alone must do
        print(f"async-tracker: {' '.join(why.split())}", file=sys.stderr, flush=True)
    return ending


class _Seconds(click.FloatRange):
    """A finite number of seconds: NaN is in every range, and no command waits for ever."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it. Raises BadParameter for what is none."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return number


def _do(where: str, target: Target, **options: Any) -> int:
    """Load and run ``module:function`` of this package."""
    code: int = import_module("async_tracker.cli.running").run(where, target, options)
    return code


def _parameter(library: str) -> str:
    return f"{library}_redis_url"


def _library_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each known worker library, with the url of its Redis."""
    for library in reversed(KNOWN):
        option = click.option(redis_option(library.name), _parameter(library.name), metavar="URL", help=redis_option_help(library.name))
        command = option(command)
    return command


def _reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which Redis and which namespace, as its ``target``. They may also stand before the command."""

    @click.option("--redis-url", metavar="URL", help="The tracker's Redis. [TRACKER_REDIS_URL, then REDIS_URL]")
    @click.option("--namespace", metavar="NAME", help="The prefix of all its keys. [TRACKER_NAMESPACE, then async_tracker]")
    @_library_options
    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
    @click.pass_context
    @functools.wraps(command)
    def with_target(context: click.Context, /, **given: Any) -> Any:
        urls = {library.name: given.pop(_parameter(library.name)) for library in KNOWN}
        nearer = Target(
            redis_url=given.pop("redis_url"),
            namespace=given.pop("namespace"),
            library_urls={name: url for name, url in urls.items() if url is not None},
            as_json=given.pop("as_json"),
        )
        outer = context.parent.obj if context.parent is not None and context.parent.obj is not None else Target()
        context.obj = outer.under(nearer)
        return command(context.obj, **given)

    return with_target


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="async-tracker")
@_reaching
def program(target: Target) -> None:
    """Know what every async worker is doing, and never lose a job to a crash."""


@program.command(short_help="See it work: workers, jobs, a kill, a recovery.")
@click.option("--redis-url", metavar="URL", help="Use this Redis instead of starting one; the namespace and the queue must be empty.")
@click.option("--namespace", metavar="NAME", help="A namespace for the demo alone. [a new one for every run]")
@click.option("--workers", type=click.Choice(["arq", "dramatiq", "both"]), default="arq", show_default=True, help="Whose workers to show.")
@click.option("--quick", is_flag=True, help="A shorter show.")
@click.option("--keep", is_flag=True, help="Keep running after the summary, for other commands from another terminal; Ctrl-C ends it.")
@click.option("--web", is_flag=True, help="Serve the page beside it, to watch the kill in a browser; it keeps running as with --keep.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), default=0, help="Where --web listens. [a free one]")
@click.option("--json", "as_json", is_flag=True, help="End with the summary as one JSON document; the show goes to stderr.")
@click.pass_context
def demo(
    context: click.Context,
    *,
    redis_url: str | None,
    namespace: str | None,
    workers: str,
    quick: bool,
    keep: bool,
    web: bool,
    port: int,
    as_json: bool,
) -> int:
    """See it work: real workers of arq, of dramatiq or of both, a steady stream of jobs, one worker killed, its jobs running again.

    Needs no Redis: it ignores TRACKER_REDIS_URL and REDIS_URL, starts a server of its own, and removes everything at its end.
    """
    outer = context.parent.obj if context.parent is not None and context.parent.obj is not None else Target()
    target = outer.under(Target(redis_url=redis_url, namespace=namespace, as_json=as_json))
    where = "demo.watched:demo" if web else "demo.show:demo"  # the page needs an extra that the show does not
    return _do(where, target, quick=quick, keep=keep, workers=workers, **({"port": port} if web else {}))


@program.command(short_help="Show instances and queues.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="A page of at most N instances, by id; reads no others, and no queues."
)
@click.option("--after", metavar="INSTANCE", help="Begin the page after this instance: the last of the page before.")
@_reaching
def ps(target: Target, *, limit: int | None, after: str | None) -> int:
    """Show the instances, then the queues they work on: depth and oldest wait. In a large fleet, ask by the page: --limit 100."""
    return _do("lists:ps", target, limit=limit, after=after)


@program.command(short_help="Show the jobs in flight.")
@click.option("--instance", metavar="ID", help="Only of this instance: its id, its label, or the beginning of either.")
@click.option("--function", metavar="NAME", help="Only of this function.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="A page of at most N jobs, by instance and job id; reads no more.")
@click.option("--after", metavar="INSTANCE JOB", nargs=2, help="Begin the page after this instance and job: the last of the page before.")
@click.option("--lines", "as_lines", is_flag=True, help="A line of JSON for each job as it is read, by instance and job id, for programs.")
@_reaching
def jobs(
    target: Target, *, instance: str | None, function: str | None, limit: int | None, after: tuple[str, str] | None, as_lines: bool
) -> int:
    """Show the jobs in flight, the oldest first. In a large fleet, ask for them by the page, --limit 100, or --lines."""
    return _do("lists:jobs", target, instance=instance, function=function, limit=limit, after=after, as_lines=as_lines)


@program.command(short_help="Show the line at which each job of an instance waits.")
@click.argument("instance")
@click.option("--job", "job_id", metavar="ID", help="Only the runs of this job.")
@_reaching
def stacks(target: Target, *, instance: str, job_id: str | None) -> int:
    """Show the line at which each job of an instance waits, equal ones once, and what its threads do; no values of variables.

    INSTANCE is its id, its label, or the beginning of either. One whose event loop is blocked answers with its next word.
    """
    return _do("stacks:stacks", target, instance=instance, job_id=job_id)


@program.command(short_help="End the run of a job for good.")
@click.argument("job_id")
@click.option(
    "--wait", metavar="SECONDS", type=_Seconds(min=0.0, max=86_400.0), default=10.0, show_default=True, help="How long its end may take."
)
@_reaching
def abort(target: Target, *, job_id: str, wait: float) -> int:
    """End the run of a job for good: its function is cancelled, and the job does not run again.

    0 when the run has ended, 1 when it goes on, 4 when the job does not run.
    """
    return _do("abort:abort", target, job_id=job_id, wait=wait)


@program.command(short_help="Show the jobs of dead instances.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="A page of at most N jobs, by instance and job id; reads no more.")
@click.option("--after", metavar="INSTANCE JOB", nargs=2, help="Begin the page after this instance and job: the last of the page before.")
@_reaching
def orphans(target: Target, *, limit: int | None, after: tuple[str, str] | None) -> int:
    """Show the jobs that are not yet recovered and whose instance is dead."""
    return _do("lists:orphans", target, limit=limit, after=after)


@program.command(short_help="Show counters by function.")
@click.option("--function", metavar="NAME", help="Only of this function.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--window", metavar="SPAN", help="Only the last 10m, 1h or 7d, with percentiles. [all of time]")
@_reaching
def stats(target: Target, *, function: str | None, queue: str | None, window: str | None) -> int:
    """Show how many jobs have started, succeeded, failed, been recovered, by function."""
    return _do("lists:stats", target, function=function, queue=queue, window=window)


@program.command(short_help="Show how often and how long, in small charts.")
@click.argument("function", required=False)
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--since", metavar="SPAN", default="6h", show_default=True, help="How far back: 30m, 6h, 7d; 30d at most.")
@click.option("--step", metavar="SPAN", help="What one point covers: 1m, 5m, 1h. [so that they fit on 80 columns]")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone. [where the terminal's encoding has no more]")
@_reaching
def history(target: Target, *, function: str | None, queue: str | None, since: str, step: str | None, ascii_only: bool) -> int:
    """Show what was, of one FUNCTION or of all: runs, outcomes, run times and waits, queues, deploys.

    On a terminal in small charts, elsewhere as a table. Minutes are kept for 24 hours and hours for 30 days.
    """
    return _do("history:history", target, function=function, queue=queue, since=since, step=step, ascii_only=ascii_only)


@program.command(short_help="Watch it live in the terminal.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=_Seconds(min=0.2, max=3_600),
    default=2.0,
    show_default=True,
    help="How long after one look the next one comes.",
)
@_reaching
def top(target: Target, *, interval: float) -> int:
    """Watch instances, jobs, functions and queues with their rates, live.

    Keys: 1 to 4 or Tab choose what is shown, < and > the column that it is sorted by, r the direction, / what rows must have in them, the
    space bar pauses, q ends it.
    """
    return _do("top.show:top", target, interval=interval)


@program.command(short_help="Show what happened.")
@click.option("--since", metavar="WHEN", help="Only events since then: 10m, 2h, 1d, a date and time, or the id of an event.")
@click.option("--follow", "-f", is_flag=True, help="Then show new events as they happen; Ctrl-C ends it.")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only events of this type; can be given several times.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Show at most this many, the newest; also with --since.",
)
@_reaching
def events(target: Target, *, since: str | None, follow: bool, types: tuple[str, ...], limit: int) -> int:
    """Show what happened: deaths, orphans, recoveries, quarantines."""
    return _do("events:events", target, since=since, follow=follow, types=types, limit=limit)


@program.command(short_help="Recover the orphans of dead instances now.")
@click.argument("job_ids", metavar="[JOB_ID]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_reaching
def recover(target: Target, *, job_ids: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """Look for dead instances now, and make their orphans runnable again: all of them, or these jobs.

    Instances do this by themselves, except when all of them have recover=False.
    """
    return _do("remedies:recover", target, job_ids=job_ids, dry_run=dry_run, yes=yes)


@program.group(short_help="Show poison pills and decide about them.")
@_reaching
def quarantine(target: Target) -> None:
    """Show poison pills and decide about them: jobs that kept killing their workers."""


@quarantine.command("list")
@_reaching
def quarantine_list(target: Target) -> int:
    """Show the quarantined jobs, the longest quarantined first."""
    return _do("remedies:quarantine_list", target)


@quarantine.command("show")
@click.argument("job_id")
@_reaching
def quarantine_show(target: Target, *, job_id: str) -> int:
    """Show everything that is known about one quarantined job, except its payload."""
    return _do("remedies:quarantine_show", target, job_id=job_id)


@quarantine.command("retry")
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@_reaching
def quarantine_retry(target: Target, *, job_ids: tuple[str, ...]) -> int:
    """Put jobs back into their queues with all their tries. A job whose id was enqueued again stays in quarantine (exit code 1)."""
    return _do("remedies:quarantine_retry", target, job_ids=job_ids)


@quarantine.command("drop")
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_reaching
def quarantine_drop(target: Target, *, job_ids: tuple[str, ...], yes: bool) -> int:
    """Delete jobs for good, with their payloads."""
    return _do("remedies:quarantine_drop", target, job_ids=job_ids, yes=yes)


def _meaning(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the ways of saying which instances are meant, as its ``meant``."""

    @click.argument("instances", metavar="[INSTANCE]...", nargs=-1)
    @click.option("--here", is_flag=True, help="The instances of this host: in a container, of the container.")
    @click.option("--label", metavar="NAME", help="The instances with this label, TRACKER_INSTANCE_ID: a pod's name.")
    @click.option("--queue", metavar="NAME", help="All instances that work on this queue.")
    @click.option("--all", "everywhere", is_flag=True, help="All instances of the namespace.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask where many are meant.")
    @functools.wraps(command)
    def with_meant(*arguments: Any, **given: Any) -> Any:
        names = ("instances", "here", "label", "queue", "everywhere")
        return command(*arguments, meant={name: given.pop(name) for name in names}, **given)

    return with_meant


@program.command(short_help="Have workers take no more jobs.")
@_meaning
@click.option("--for", "stands_for", metavar="SPAN", help="With --queue or --all: how long it stands.  [default: 1h]")
@click.option("--no-cron", is_flag=True, help="Have no cron jobs queued meanwhile; those of that time are skipped.")
@click.option("--wait", type=click.Choice(["idle"]), help="Then wait until nothing is in hand.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=_Seconds(min=0, max=_LONGEST),
    default=50.0,
    show_default=True,
    help="With --wait: how long at most.",
)
@_reaching
def quiet(
    target: Target, *, meant: dict[str, Any], stands_for: str | None, no_cron: bool, wait: str | None, timeout: float, yes: bool
) -> int:
    """Have workers take no more jobs, and run those that they have: before a deploy, or in an incident.

    INSTANCE is an id, a label, or the beginning of either. Instances that are named stay quiet until resume. With --queue or --all
    the order stands: an instance that registers meanwhile begins quiet. When it is over they take jobs again by themselves.
    """
    options = {"stands_for": stands_for, "cron": not no_cron, "wait": wait, "timeout": timeout, "yes": yes}
    return _do("orders:quiet", target, meant=meant, **options)


@program.command(short_help="Have quiet workers take jobs again.")
@_meaning
@_reaching
def resume(target: Target, *, meant: dict[str, Any], yes: bool) -> int:
    """Have quiet workers take jobs again. With --queue or --all the standing order is withdrawn."""
    return _do("orders:resume", target, meant=meant, yes=yes)


@program.command(short_help="Have workers end in order.")
@_meaning
@click.option("--group", is_flag=True, help="A worker that is one of several processes ends with its master and the others.")
@_reaching
def stop(target: Target, *, meant: dict[str, Any], group: bool, yes: bool) -> int:
    """Have workers end in order, as their library ends them; no signal goes to a process that is more than its worker."""
    return _do("orders:stop", target, meant=meant, group=group, yes=yes)


@program.command(short_help="Probe a container: is its instance alive?")
@click.option("--instance", metavar="ID", help="The instance: its id, its label, or the beginning of either. [this host's]")
@click.option(
    "--blocked-limit",
    metavar="SECONDS",
    type=_Seconds(min=0, max=_LONGEST),
    help="A loop that is blocked for longer is not alive. [no limit]",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=_Seconds(min=0.05, max=_LONGEST),
    default=0.5,
    show_default=True,
    help="How long Redis may take.",
)
@_reaching
def check(target: Target, *, instance: str | None, blocked_limit: float | None, timeout: float) -> int:
    """Probe a container: 0 when this host's instance is alive, 1 when it is not, 3 when that cannot be asked.

    A quiet or draining instance is alive, and so is one whose loop is blocked while its watchdog reports: a restart would kill their jobs.
    """
    return _do("probe:check", target, instance=instance, blocked_limit=blocked_limit, timeout=timeout)


@program.command(short_help="Find out what is missing, and what to do about it.")
@click.option(
    "--user",
    metavar="NAME",
    help="Judge the permissions of this user instead of your own; you need the right to run ACL DRYRUN.",
)
@_reaching
def doctor(target: Target, *, user: str | None) -> int:
    """Find out what is missing, and what to do about it: server, permissions, instances, records. Exits 1 if there is a problem."""
    return _do("doctor:doctor", target, user=user)


@program.command(short_help="Serve metrics for Prometheus.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen; there is no password.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), default=9465, show_default=True, help="0 takes a free one.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=_Seconds(min=0.05, max=60),
    default=3.0,
    show_default=True,
    help="How long Redis may take for a scrape.",
)
@click.option(
    "--names-most",
    metavar="N",
    type=click.IntRange(1, 1_000),
    default=100,
    show_default=True,
    help="How many functions, and queues, have a label of their own; the others share one.",
)
@_reaching
def metrics(target: Target, *, host: str, port: int, timeout: float, names_most: int) -> int:
    """Serve metrics for Prometheus at /metrics. SIGTERM or Ctrl-C ends it."""
    return _do("metrics:metrics", target, host=host, port=port, timeout=timeout, names_most=names_most)


@program.command(short_help="Show all this in a browser.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen; another needs --token-file.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), default=8686, show_default=True, help="0 takes a free one.")
@click.option("--root-path", metavar="PREFIX", default="", help="The prefix under which a proxy serves it, taken off or not.")
@click.option(
    "--public-url", "public_urls", metavar="URL", multiple=True, help="Where people reach it: https://ops.example.com/tracker; repeatable."
)
@click.option("--allow-actions", is_flag=True, help="Let people recover jobs, and retry or drop quarantined ones.")
@click.option("--token-file", metavar="FILE", type=click.Path(), help="A token of your own. [one is made up, and printed with the address]")
@click.option("--title", metavar="TEXT", help="Shown instead of the namespace.")
@click.option("--environment", metavar="NAME", help="Shown beside the title; prod is red.")
@click.option("--open", "open_browser", is_flag=True, help="Open it in the browser of this machine.")
@_reaching
def serve(
    target: Target,
    *,
    host: str,
    port: int,
    root_path: str,
    public_urls: tuple[str, ...],
    allow_actions: bool,
    token_file: str | None,
    title: str | None,
    environment: str | None,
    open_browser: bool,
) -> int:
    """Serve the page: instances, jobs, orphans, quarantine, queues, events, live in a browser. SIGTERM or Ctrl-C ends it."""
    return _do(
        "serve:serve",
        target,
        host=host,
        port=port,
        root_path=root_path,
        public_urls=public_urls,
        allow_actions=allow_actions,
        token_file=token_file,
        title=title,
        environment=environment,
        open_browser=open_browser,
    )
