"""Where results go: one small class a file, chosen by ``open_sink``."""

from __future__ import annotations

import difflib
import os
import platform
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from edge_fer.address import NETWORK, http_url, listening_at, printable
from edge_fer.config import Settings
from edge_fer.credentials import credential_of, roots_alone
from edge_fer.errors import UsageError
from edge_fer.files import mode_of

if TYPE_CHECKING:  # doctor checks outputs before it knows that NumPy loads
    from edge_fer.core import Sink
    from edge_fer.events import Run

EXAMPLES = {
    "terminal": "terminal",
    "jsonl": "jsonl:events.jsonl",
    "csv": "csv:faces.csv",
    "video": "video:annotated.mp4",
    "pictures": "pictures:annotated/",
    "mqtt": "mqtt://homeassistant.local",
    "mqtts": "mqtts://homeassistant.local",
    "web": "web:127.0.0.1:8080",
    "webhook": "webhook:http://homeassistant.local:8123/api/webhook/edge-fer",
}
"""One example of each output that ``open_sink`` knows."""


def open_sink(spec: str, run: Run | None = None, settings: Settings | None = None) -> Sink:
    """Open an output.

    Args:
        spec: ``terminal``, ``jsonl:PATH``, ``csv:PATH``, ``video:PATH`` or ``pictures:DIR``. The PATH of ``jsonl``
            and ``csv`` may be ``-`` for stdout. Folders that do not exist are made. ``terminal:picture`` shows the
            picture too, ``terminal:blocks`` does so in text alone, ``terminal:text`` never.
            ``mqtt://USER@HOST:PORT/TOPIC`` (``mqtts://`` with TLS) publishes to a broker, ``web:HOST:PORT`` serves a
            page, ``webhook:URL`` sends what changes.
        run: what the output says about the run, the same for all its sinks; None for a run of its own.
        settings: what an output's name does not say; None for the defaults.

    Raises:
        UsageError: there is no such output, or it lacks a path.
        UnavailableError: a package that it needs is missing, or a port is in use.
        ConfigError: its settings are wrong.
        OutputError: the place cannot be written.
    """
    if run is None:
        from edge_fer.events import Run

        run = Run()
    kind, path = check_spec(spec)
    if kind in NETWORK:
        return _open_in_network(kind, path, run, settings or Settings())
    # The shell does not see a ~ here: it does not begin a word. pathlib's fails where there is no such user.
    path = os.path.expanduser(path)  # noqa: PTH111
    match kind:
        case "jsonl":
            from edge_fer.sinks.jsonl import JsonlSink

            return JsonlSink(path, run)
        case "csv":
            from edge_fer.sinks.csv import CsvSink

            return CsvSink(path, run)
        case "video":
            from edge_fer.sinks.video import VideoSink

            return VideoSink(Path(path), run)
        case "pictures":
            from edge_fer.sinks.pictures import PicturesSink

            return PicturesSink(Path(path), run, (settings or Settings()).pictures)
        case _:
            from edge_fer.sinks.terminal import TerminalSink

            return TerminalSink(path)


def _open_in_network(kind: str, address: str, run: Run, settings: Settings) -> Sink:
    if kind == "web":
        from edge_fer.sinks.web import WebSink

        return WebSink(address, run, settings.web)
    if kind in ("mqtt", "mqtts"):
        from edge_fer.sinks.mqtt import MqttSink

        return MqttSink(f"{kind}:{address}", run, settings.mqtt)
    from edge_fer.sinks.webhook import WebhookSink

    return WebhookSink(address, run)


def check_network(spec: str, settings: Settings, folder: Path | None = None) -> None:
    """Look for what keeps an output in the network from being opened, without asking another machine.

    Args:
        spec: of any output; of others nothing is looked for.
        settings: what its name does not say.
        folder: of a service's configuration: secrets beside it are handed over by systemd.

    Raises:
        UsageError: the address, a topic or the lack of a token is wrong.
        ConfigError: a secret or certificate is not as it should be. One that this user may not read is taken as good:
            it may be root's alone.
    """
    kind, address = check_spec(spec)
    if kind in ("mqtt", "mqtts"):
        from edge_fer.sinks.broker import Access

        mqtt = settings.mqtt
        if roots_alone(settings, "mqtt"):
            mqtt = replace(mqtt, password_file="", ca_file="", cert_file="", key_file="")
        Access.of(f"{kind}:{address}", mqtt, settings.name or platform.node())
    elif kind == "web":
        from edge_fer.service.access import is_loopback, read_certificate, read_token, without_token

        if roots_alone(settings, "web"):
            return
        read_certificate(settings.web)
        is_given = folder is not None and S_ISREG(mode_of(folder / credential_of("web.token_file")))
        if not (read_token(settings.web) or is_given or is_loopback(listening_at(address)[0])):
            raise without_token(address)


def check_spec(spec: str) -> tuple[str, str]:
    """Kind and path of an output, without opening it.

    Raises:
        UsageError: there is no such output, or it lacks a path.
    """
    kind, _, path = spec.partition(":")
    if kind not in EXAMPLES:
        near = difflib.get_close_matches(kind, EXAMPLES, n=1)
        known = "" if near else ", ".join(EXAMPLES.values())
        raise UsageError(
            f"Unknown output '{printable(spec)}'. "
            + (f"Did you mean {EXAMPLES[near[0]]}?" if near else f"Known: {known}.")
        )
    if kind == "terminal" and path not in ("", "text", "picture", "blocks"):
        raise UsageError(
            f"The terminal does not show '{printable(path)}'. Write terminal, terminal:text, terminal:picture or "
            "terminal:blocks."
        )
    if kind == "web":
        listening_at(path)
    elif kind != "terminal" and not path:
        raise UsageError(
            f"Output '{spec}' needs {'an address' if kind in NETWORK else 'a path'}: write {EXAMPLES[kind]}."
        )
    if kind == "webhook":
        http_url(path)
    if "\0" in path:
        raise UsageError(f"Output {spec!r} has a zero byte in its path.")
    return kind, path
