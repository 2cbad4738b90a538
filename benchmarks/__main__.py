"""The program: ``python -m benchmarks [what] [--middle | --quick] [--minutes N] [--json FILE] [--plot FILE] [--results]``, and more."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import redis

from async_tracker.errors import ConfigError
from benchmarks import connections, overhead, queries, recovery, scale, web
from benchmarks.charts import NoPlots, draw, picture_path, plotting
from benchmarks.environment import environment, header
from benchmarks.ground import DatabaseInUse, Ground, ground
from benchmarks.proxy import run as namespace
from benchmarks.report import Report, write_json
from benchmarks.size import FULL, MIDDLE, QUICK, Size

USAGE, UNREACHABLE, INTERRUPTED = 2, 3, 130

_LARGEST_FLEET = 10_000

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"

DURATIONS = (
    "Each benchmark ends by itself and says how long it took. In full, overhead takes about two hours on two cores; with --middle it makes "
    "as many rounds as fit into a quarter of an hour."
)

BENCHMARKS: dict[str, Callable[[Ground, Size], Report]] = {
    "overhead": overhead.run,
    "connections": connections.run,
    "queries": queries.run,
    "namespace": namespace,
    "recovery": recovery.run,
    "scale": scale.run,
    "web": web.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print it, write what was asked for. Returns the exit code."""
    asked = _parser().parse_args(arguments)
    names = list(BENCHMARKS) if asked.what == "all" else [asked.what]
    size = QUICK if asked.quick else MIDDLE if asked.middle else FULL
    if asked.minutes is not None:
        size = replace(size, seconds=asked.minutes * 60.0)
    if asked.full:
        size = replace(size, fleet=(*size.fleet, _LARGEST_FLEET))
    try:
        if asked.results or asked.plot is not None:
            plotting()  # said before half an hour of measuring, not after it
        with ground(asked.redis_url) as found:
            where = environment(found, size=size.name)
            print(header(where), end="\n\n", flush=True)
            reports = [_one(name, found, size) for name in names]
    except (DatabaseInUse, ConfigError, NoPlots) as exc:
        print(exc, file=sys.stderr)
        return USAGE
    except redis.exceptions.ConnectionError as exc:
        print(f"Redis cannot be reached: {exc}", file=sys.stderr)
        return UNREACHABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    if asked.json is not None:
        write_json(asked.json, where, reports)
    if asked.plot is not None:
        for report in reports:
            draw(report, picture_path(asked.plot, report, reports))
    if asked.results:
        write_results(RESULTS, where, reports)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What tracking costs, and what it brings.", epilog=DURATIONS)
    parser.add_argument("what", nargs="?", choices=[*BENCHMARKS, "all"], default="all", help="which benchmark (default: all)")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="some minutes' worth: fewer rounds, wide intervals")
    extent.add_argument("--middle", action="store_true", help="what matters most: of the grid of jobs the cells that most people have")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help="overhead, connections: make no more rounds than fit into so many minutes each (with --middle: 15); one is always made",
    )
    parser.add_argument("--full", action="store_true", help=f"scale: a fleet of {_LARGEST_FLEET:,} as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it (.svg, .png, .pdf); with several benchmarks, a file for each")
    parser.add_argument("--results", action="store_true", help=f"write what was measured into {RESULTS.name}, with its picture")
    parser.add_argument("--redis-url", metavar="URL", help="an empty database, which is emptied again (default: a server of our own)")
    return parser


def _one(name: str, found: Ground, size: Size) -> Report:
    began = time.monotonic()
    found.empty()
    report = replace(BENCHMARKS[name](found, size), seconds=time.monotonic() - began)
    print(report.to_markdown(), end="\n\n", flush=True)
    return report


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes: write one above 0, such as 15")
    return minutes


def write_results(path: Path, where: dict[str, str], reports: Sequence[Report], *, draw: Callable[[Report, Path], None] = draw) -> None:
    """Write these benchmarks into the page of results, and a picture for each in ``plots`` beside it; the others on it stay as they are.

    Each says of itself when and on what it was measured. Raises NoPlots.
    """
    plots = path.parent / "plots"
    plots.mkdir(exist_ok=True)
    sections = sections_of(path.read_text()) if path.exists() else {}
    measured = "Measured on " + "; ".join(value if name == "date" else f"{name}: {value}" for name, value in where.items()) + "."
    for report in reports:
        heading, _, rest = report.to_markdown().partition("\n\n")
        parts = [heading, measured, rest]
        if report.charts or report.heat_maps:
            picture = plots / f"{report.name}.svg"
            draw(report, picture)
            parts.append(f"![{report.title}]({picture.relative_to(path.parent)})")
        sections[report.name] = "\n\n".join(parts)
    path.write_text("\n\n".join([_ABOUT_RESULTS, *(sections[name] for name in BENCHMARKS if name in sections)]) + "\n")


_ABOUT_RESULTS = (
    "# Results\n\nWritten by `python -m benchmarks --results`, of all benchmarks or of one; do not edit. Medians; intervals by order "
    "statistics over interleaved rounds."
)


def sections_of(page: str) -> dict[str, str]:
    """Split a page of results into what it says of each benchmark, by name.

    >>> sections_of("# Results\\n\\n## web: the page\\n\\nA.\\n\\n## scale: a fleet\\n\\nB.\\n")
    {'web': '## web: the page\\n\\nA.', 'scale': '## scale: a fleet\\n\\nB.'}
    """
    _, *parts = re.split(r"^(?=## \w+: )", page, flags=re.MULTILINE)
    return {part.removeprefix("## ").partition(":")[0]: part.rstrip() for part in parts}


if __name__ == "__main__":
    sys.exit(main())
