"""Which instances an order is for: pure."""

from collections.abc import Collection, Iterable

from async_tracker.arguments import check_argument_names, check_argument_texts
from async_tracker.errors import WrongArgument
from async_tracker.policy import InstanceState
from async_tracker.records import Instance


class Aim:
    """One instance, several, those of a queue, or all. Raises WrongArgument for none of these, and for more than one.

    >>> Aim("quiet", "w:1:ab").names, Aim("quiet", queue="mail").names, Aim("quiet", everywhere=True).is_standing
    (['w:1:ab'], None, True)
    >>> Aim("quiet")
    Traceback (most recent call last):
    async_tracker.errors.WrongArgument: quiet(): write whom it is for: the id of an instance, queue="mail", or everywhere=True
    """

    def __init__(
        self, order: str, instance_id: str | Collection[str] | None = None, *, queue: str | None = None, everywhere: bool = False
    ) -> None:
        if (instance_id is not None) + (queue is not None) + bool(everywhere) != 1:
            raise WrongArgument(f'{order}(): write whom it is for: the id of an instance, queue="mail", or everywhere=True')
        check_argument_texts(order, queue=queue)
        self.order = order
        self.queue = queue
        self.is_one = isinstance(instance_id, str)
        """Whether the id of one instance was given, and its answer is wanted."""
        self.is_standing = instance_id is None
        """Whether instances that register later are meant as well."""
        self.names: list[str] | None = None
        """The ids that were given; None where `among` tells them."""
        if isinstance(instance_id, str):
            check_argument_texts(order, instance_id=instance_id)
            self.names = [instance_id]
        elif instance_id is not None:
            check_argument_names(order, instance_id=instance_id)
            self.names = list(dict.fromkeys(instance_id))

    def among(self, instances: Iterable[Instance]) -> list[str]:
        """Give the ids of those that are meant; the dead are not."""
        there = [item for item in instances if item.state is not InstanceState.DEAD]
        return [item.instance_id for item in there if self.queue is None or self.queue in (item.queue, *item.queues)]
