"""Let the actors of a pipeline of Ray Data end when it has failed."""

from __future__ import annotations

import traceback


class ActorRelease:
    """Lets the actors of a pipeline end that failed; a callback of Ray Data.

    An actor ends when nothing refers to it, and the error of a pipeline refers to all that the
    functions on its way knew: a notebook keeps it, and with it a model on a GPU.
    """

    def before_execution_starts(self, executor: object) -> None:
        """Do nothing."""

    def on_execution_step(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_succeeds(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: object, error: BaseException) -> None:
        """Forget the variables of the functions that the error passed through."""
        one: BaseException | None = error
        while one is not None:
            traceback.clear_frames(one.__traceback__)
            one = one.__cause__ or one.__context__
