"""The queue of the network's sinks: bounded, patient, and never in the loop's way."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.sinks.delivery import Delivery, RefusedError

LONG_S = 20.0  # only reached when the code under test hangs


class Receiver:
    """Takes a batch when the test says what becomes of it: an error to raise, or None."""

    def __init__(self) -> None:
        self.answers: queue.Queue[Exception | None] = queue.Queue()
        self.asked = threading.Semaphore(0)
        self.got: list[int] = []

    def send(self, batch: Sequence[int]) -> None:
        self.asked.release()
        answer = self.answers.get(timeout=LONG_S)
        if answer is not None:
            raise answer
        self.got += batch

    def wait_asked(self) -> None:
        assert self.asked.acquire(timeout=LONG_S)


def in_order(*answers: Exception | None) -> tuple[list[list[int]], Callable[[Sequence[int]], None]]:
    """What a receiver was given, and the receiver: it answers at once, in the end always well."""
    seen: list[list[int]] = []
    left = list(answers)

    def send(batch: Sequence[int]) -> None:
        seen.append(list(batch))
        answer = left.pop(0) if left else None
        if answer is not None:
            raise answer

    return seen, send


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
def test_all_arrive_in_order(messages: list[int], batch: int) -> None:
    seen, send = in_order()
    delivery = Delivery("test", send, batch=batch, close_s=LONG_S)
    for message in messages:
        delivery.put(message)
    delivery.close()
    assert [one for group in seen for one in group] == messages
    assert all(len(group) <= batch for group in seen)
    assert delivery.counts == {"sent": len(messages), "dropped": 0, "refused": 0}


def test_a_receiver_that_hangs_holds_neither_put_nor_close() -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, most=10, close_s=0.01)
    delivery.put(0)
    receiver.wait_asked()
    for number in range(1, 16):
        delivery.put(number)
    assert delivery.waiting == 10
    assert delivery.counts["dropped"] == 5
    delivery.close()
    assert delivery.waiting == 0
    assert delivery.counts["dropped"] == 15
    receiver.answers.put(None)


def test_the_oldest_gives_way() -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, most=2, close_s=LONG_S)
    delivery.put(0)
    receiver.wait_asked()
    for number in (1, 2, 3):
        delivery.put(number)
    for _ in range(3):
        receiver.answers.put(None)
    delivery.close()
    assert receiver.got == [0, 2, 3]


def test_what_fails_is_sent_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    delivery = Delivery("the broker", receiver.send, batch=2, pauses_s=(0.0,), close_s=LONG_S)
    with caplog.at_level(logging.WARNING):
        delivery.put(1)
        for error in (OSError(113, "no route"), OSError("no route"), ConnectionRefusedError("refused"), None):
            receiver.wait_asked()
            receiver.answers.put(error)
        delivery.close()
    assert receiver.got == [1]
    assert [record.message for record in caplog.records] == [
        "the broker: no route. It is tried again; 1000 messages are kept meanwhile.",
        "the broker is reached again; 0 messages were dropped meanwhile.",
    ]
    assert delivery.reached


def test_a_failed_batch_goes_back_before_the_newer_ones_and_is_the_first_to_be_dropped() -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, most=3, batch=2, pauses_s=(0.0,), close_s=LONG_S)
    delivery.put(0)
    receiver.wait_asked()
    for number in (1, 2, 3):
        delivery.put(number)
    receiver.answers.put(OSError("away"))
    receiver.wait_asked()  # 0 gave way, and 1 and 2 are in hand
    receiver.answers.put(None)
    receiver.answers.put(None)
    delivery.close()
    assert receiver.got == [1, 2, 3]
    assert delivery.counts == {"sent": 3, "dropped": 1, "refused": 0}


def test_pauses_grow_and_begin_anew_after_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, pauses_s=(0.001, 0.002, 0.003), close_s=LONG_S)
    waited: list[float] = []
    wait_for = delivery._changed.wait_for

    def watched(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        waited.append(timeout or 0.0)
        return wait_for(predicate, timeout)

    monkeypatch.setattr(delivery._changed, "wait_for", watched)
    delivery.put(1)
    delivery.put(2)
    away = OSError("away")
    for answer in (away, away, away, away, None, away, None):
        receiver.wait_asked()
        receiver.answers.put(answer)
    delivery.close()
    assert receiver.got == [1, 2]
    assert waited == [0.001, 0.002, 0.003, 0.003, 0.001]


def test_close_wakes_a_pause_and_tries_once_more() -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, pauses_s=(3600.0,), close_s=LONG_S)
    delivery.put(1)
    receiver.wait_asked()
    receiver.answers.put(OSError("away"))
    receiver.answers.put(None)
    delivery.close()
    assert receiver.got == [1]


def test_close_gives_up_on_what_is_away() -> None:
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, pauses_s=(3600.0,), close_s=LONG_S)
    delivery.put(1)
    delivery.put(2)
    for _ in range(2):
        receiver.answers.put(OSError("away"))
    delivery.close()
    assert delivery.counts == {"sent": 0, "dropped": 2, "refused": 0}


def test_what_is_refused_is_dropped_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    seen, send = in_order(RefusedError("It answers 400."), RefusedError("It answers 400."), None)
    delivery = Delivery("test", send, close_s=LONG_S)
    for number in range(3):
        delivery.put(number)
    delivery.close()
    assert seen == [[0], [1], [2]]
    assert delivery.counts == {"sent": 1, "dropped": 0, "refused": 2}
    assert [record.message for record in caplog.records] == ["test: It answers 400."]


def test_a_fault_of_ours_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    _, send = in_order(KeyError("track"))
    delivery = Delivery("test", send, close_s=LONG_S)
    delivery.put(1)
    delivery.put(2)
    delivery.close()
    assert delivery.counts == {"sent": 1, "dropped": 0, "refused": 1}
    assert [record.message for record in caplog.records] == ["test: internal error: KeyError('track')."]


def test_what_is_too_old_is_dropped() -> None:
    now_s = 0.0
    receiver = Receiver()
    delivery = Delivery("test", receiver.send, oldest_s=60.0, close_s=LONG_S, clock=lambda: now_s)
    delivery.put(0)
    receiver.wait_asked()
    delivery.put(1)
    now_s = 30.0
    delivery.put(2)
    now_s = 60.5
    receiver.answers.put(None)
    receiver.answers.put(None)
    delivery.close()
    assert receiver.got == [0, 2]
    assert delivery.counts["dropped"] == 1


def test_after_close_nothing_is_taken() -> None:
    seen, send = in_order()
    delivery = Delivery("test", send, close_s=LONG_S)
    delivery.close()
    delivery.close()
    delivery.put(1)
    assert seen == []
    assert delivery.counts["dropped"] == 1
