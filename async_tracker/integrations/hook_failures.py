"""How a hook of an integration fails: once in the log, and never into the worker."""

import logging

logger = logging.getLogger("async_tracker")

_FAILED = "a hook of the tracker failed, its job runs on; further failures are not logged"


class HookFailures:
    """The failures of one worker's hooks. The first is logged: a defect of ours must not fill the log of a busy worker."""

    def __init__(self) -> None:
        self._is_logged = False

    def note(self, exc: Exception) -> None:
        """A hook has failed with ``exc``."""
        if not self._is_logged:
            self._is_logged = True
            logger.error(_FAILED, exc_info=exc)
