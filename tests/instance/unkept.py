"""A keeper for runs that are only put into a journal: none of their jobs asks for it."""

from async_tracker.instance.runs import Keeper, Run


class Unkept(Keeper):
    """Fails the test that asks it."""

    def touch(self, run: Run) -> None:
        raise AssertionError(f"{run} was touched by its job")

    async def is_still_owned(self, run: Run) -> bool:
        raise AssertionError(f"{run} was asked whether it is owned")


UNKEPT = Unkept()
