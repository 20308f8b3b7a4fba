"""Waits for a PACS that does not answer for a while, longer each time, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from datasites.imaging.problems import SourceLostError, UnreadableSourceError

Result = TypeVar("Result")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 15.0
RESUME = "what was published so far is kept: run the same command again to go on"


class UnavailableError(Exception):
    """The PACS does not answer now, or answers that it cannot; the message is a sentence.

    Attributes:
        answered: It did answer, if only that it is busy.
        wait_s: How long it asked to be left alone, 0 if it did not say.
    """

    def __init__(self, sentence: str, *, answered: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.answered, self.wait_s = answered, wait_s


def silent(sentence: str) -> None:
    """Tell nobody."""


class Patience:
    """Tries again until `patience_s` seconds went by without an answer.

    A PACS that never answered is not waited for: its address is wrong, or it is not running.
    """

    def __init__(self, patience_s: float, on_wait: Callable[[str], None] = silent) -> None:
        self._patience_s, self._on_wait = patience_s, on_wait
        self._answered = False
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End every wait; nobody is there who needs the answer."""
        self._stopped.set()

    def pause(self, attempt: int) -> None:
        """Wait a little before something that was not delivered is asked for again."""
        self._stopped.wait(FIRST_WAIT_S * 2**attempt)

    def ask(self, action: Callable[[], Result]) -> Result:
        """The result of an action, which is called again while it is `UnavailableError`.

        Raises:
            UnreadableSourceError: The PACS did not answer the first time that it was asked.
            SourceLostError: It did not answer for too long.
        """
        started, wait_s = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                result = action()
            except UnavailableError as unavailable:
                self._answered = self._answered or unavailable.answered
                if not self._answered:
                    raise UnreadableSourceError(str(unavailable)) from None
                left_s = started + self._patience_s - time.monotonic()
                pause_s = max(wait_s, unavailable.wait_s)
                if left_s <= 0 or self._stopped.is_set():
                    raise SourceLostError(
                        f"{unavailable}, for {self._patience_s:.0f} s; {RESUME}"
                    ) from None
                pause_s = min(pause_s, left_s)
                self._on_wait(f"{unavailable}; trying again in {pause_s:.1f} s")
                self._stopped.wait(pause_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                self._answered = True
                return result
