"""What is wrong with the arguments of a method. Each check raises WrongArgument, a ConfigError, and a TypeError too: pure."""

import operator
from collections.abc import Collection
from typing import Any, SupportsIndex

from async_tracker.config import LONGEST_SECONDS, check_text, plain_number, shown
from async_tracker.errors import ConfigError, WrongArgument

_MOST = 2**31


def check_argument_texts(method: str, **given: Any) -> None:
    """Refuse at once what could never be written: found out later, it would be in the way of every other job.

    >>> check_argument_texts("track", function="send", queue=None)
    >>> check_argument_texts("track", function=7)
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: track(function=7): write names, as text
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise WrongArgument(f"{method}({name}={value!r:.80}): write names, as text")
        _check_argument_text(method, name, value or "")


def check_argument_names(method: str, **given: Any) -> None:
    """Refuse what is no collection of names.

    >>> check_argument_names("register", functions=["send"])
    >>> check_argument_names("register", functions="send")
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: register(functions='send'): write names, as text, in a list: functions=['send_email']
    """
    for name, value in given.items():
        is_many = isinstance(value, Collection) and not isinstance(value, str | bytes)  # of a mapping, its keys
        if not is_many or not all(isinstance(item, str) for item in value):
            raise WrongArgument(f"{method}({name}={value!r:.80}): write names, as text, in a list: {name}=['send_email']")
        for text in value:
            _check_argument_text(method, name, text)


def _check_argument_text(method: str, name: str, text: str) -> None:
    try:
        check_text(f"{method}({name}=)", text)
    except ConfigError as exc:
        raise WrongArgument(str(exc)) from exc


def check_argument_whole(method: str, *, least: int, **given: Any) -> None:
    """Refuse what is no whole number from ``least`` on, or so large that it means nothing; None stands for none.

    >>> check_argument_whole("register", least=1, concurrency=10)
    >>> check_argument_whole("register", least=1, concurrency="ten")
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: register(concurrency='ten'): write a number: a whole one, 1 or more
    """
    for name, value in given.items():
        if value is None:
            continue
        is_whole = isinstance(value, SupportsIndex) and not isinstance(value, bool)
        if not is_whole or not least <= operator.index(value) <= _MOST:
            raise WrongArgument(f"{method}({name}={shown(value)}): write a number: a whole one, {least} or more")


def check_argument_seconds(method: str, **given: Any) -> None:
    """Refuse what is no finite number of seconds, 0 or more; None stands for no limit.

    >>> check_argument_seconds("track", timeout=2.5)
    >>> check_argument_seconds("track", timeout=float("inf"))
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: track(timeout=inf): write a number of seconds, 0 or more, or None for no limit
    """
    for name, value in given.items():
        number = None if value is None else plain_number(value)
        if value is not None and (number is None or not 0 <= number <= LONGEST_SECONDS):
            raise WrongArgument(f"{method}({name}={shown(value)}): write a number of seconds, 0 or more, or None for no limit")


def check_argument_truth(method: str, **given: Any) -> None:
    """Refuse what is neither True nor False.

    >>> check_argument_truth("quiet", cron=False)
    >>> check_argument_truth("quiet", cron="no")
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: quiet(cron='no'): write True or False
    """
    for name, value in given.items():
        if type(value) is not bool:
            raise WrongArgument(f"{method}({name}={value!r:.80}): write True or False")


def check_argument_place(method: str, after: object) -> None:
    """Refuse what is no place in the order of jobs; None stands for none.

    >>> check_argument_place("jobs", ("w:1:ab", "42"))
    >>> check_argument_place("jobs", "42")
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: jobs(after='42'): write the last job that you have: after=(job.instance_id, job.job_id)
    """
    is_place = isinstance(after, tuple) and len(after) == 2 and all(isinstance(part, str) for part in after)
    if after is not None and not is_place:
        raise WrongArgument(f"{method}(after={after!r:.80}): write the last job that you have: after=(job.instance_id, job.job_id)")


def check_nothing_beside_count(method: str, limit: object, after: object, *, named: str = "limit and after") -> None:
    """Refuse a page where all are to be counted; ``named`` is what its two arguments are called."""
    if limit is not None or after is not None:
        raise WrongArgument(f"{method}(count=True) counts all: leave out {named}")
