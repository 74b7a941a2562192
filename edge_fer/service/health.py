"""Whether the service lives, and whether it does its work."""

from __future__ import annotations

from edge_fer.control import Control, State

ALIVE_S = 20.0
"""A loop that has not come round for so long hangs: a frame takes a second on the slowest board."""
FRESH_S = 10.0
"""The last frame may be so old."""


def why_dead(control: Control) -> str:
    """Why the loop is not alive; "" where it is."""
    if control.alive_s is None:
        return ""
    silent_s = control.clock() - control.alive_s
    return f"The loop has not come round for {silent_s:.0f} s." if silent_s > ALIVE_S else ""


def why_unready(control: Control) -> str:
    """Why there are no fresh results; "" where there are."""
    if dead := why_dead(control):
        return dead
    if control.state in (State.PAUSED, State.PAUSING):
        return f"It is {control.state}."
    last_s = control.last_frame_s
    if control.state is not State.RECOGNIZING or last_s is None:
        return f"It is {control.state}: no frame has come."
    old_s = control.clock() - last_s
    return f"The last frame is {old_s:.0f} s old." if old_s > FRESH_S else ""
