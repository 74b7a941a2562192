"""Does less where a board becomes too hot or is slowed down by its firmware, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_fer.board import read_health
from edge_fer.config import GovernorSettings

LOOK_S = 5.0
"""How often the sensors are read."""
SETTLE_S = 20.0
"""A step down is given so long to show before the next."""
CALM_S = 60.0
"""So long it must have been cool before a step up, so that steps do not alternate."""


class Effort(NamedTuple):
    """How much is done.

    Attributes:
        rate_hz: frames a second at most; 0 for as many as there are.
        search: by this factor a new face may be found later.
    """

    rate_hz: float
    search: float


STEPS = (Effort(0, 1), Effort(10, 2), Effort(5, 4), Effort(2, 8))
"""From everything down. Detection is most of the work, and the search for new faces a large part of it."""


class Governor:
    """Steps down while the board is too hot or slowed down, and up again after a while of calm.

    Hysteresis in heat (``hysteresis_c``) and in time (``SETTLE_S``, ``CALM_S``). A board that tells neither is let
    alone.

    Args:
        settings: from which temperature on; may be replaced at any time.
        read: as ``board.read_health``.
        clock: seconds that only grow.

    Attributes:
        settings: see above.
        step: index into ``STEPS``.
        text: what is done less, and why; "" at full effort.
    """

    def __init__(
        self,
        settings: GovernorSettings,
        read: Callable[[], Mapping[str, Any]] = read_health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.step = 0
        self.text = ""
        self._read = read
        self._clock = clock
        self._looked_s = self._stepped_s = self._hot_s = float("-inf")
        self._why = ""

    @property
    def effort(self) -> Effort:
        """What is done now."""
        return STEPS[self.step]

    def look(self) -> bool:
        """Read the sensors where it is time to; returns whether the effort has changed."""
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s, before = now_s, self.step
        if not self.settings.on:
            self.step = 0
        else:
            self._judge(self._read(), now_s)
        if self.step == before:
            return False
        self._stepped_s = now_s
        self.text = f"at most {self.effort.rate_hz:g} frames a second, because of {self._why}" if self.step else ""
        return True

    def _judge(self, health: Mapping[str, Any], now_s: float) -> None:
        temperature_c = health["temperature_c"]
        whys = [one for one in health["throttled"] or () if not one.endswith("since boot")]
        if temperature_c is not None and temperature_c >= self.settings.hot_c:
            whys.insert(0, f"{temperature_c:g} °C")
        if whys:
            self._hot_s, self._why = now_s, " and ".join(whys)
            if now_s - self._stepped_s >= SETTLE_S:
                self.step = min(self.step + 1, len(STEPS) - 1)
        elif self.step and (temperature_c is None or temperature_c <= self.settings.hot_c - self.settings.hysteresis_c):
            if min(now_s - self._hot_s, now_s - self._stepped_s) >= CALM_S:
                self.step -= 1
        else:
            self._hot_s = now_s  # neither hot nor cool: the calm has not begun
