"""Where a broker of MQTT is, as whom it is reached, and which topics are used there; all checked when a run starts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from edge_fer.address import printable, split_address
from edge_fer.config import MqttSettings
from edge_fer.credentials import secret_file
from edge_fer.errors import ConfigError, UsageError
from edge_fer.sinks.home_assistant import device_id


class Broker(NamedTuple):
    """Where results go, and as whom.

    Attributes:
        host: its name or address.
        port: of TCP.
        user: "" for none.
        tls: the connection is encrypted, and the broker shows a certificate.
        topic: template of the topic.
    """

    host: str
    port: int
    user: str
    tls: bool
    topic: str

    @classmethod
    def parse(cls, spec: str, default_topic: str) -> Broker:
        """Read ``mqtt://[USER@]HOST[:PORT][/TOPIC]``; ``mqtts://`` with TLS.

        Args:
            spec: the address.
            default_topic: where it names none.

        Raises:
            UsageError: it is no such address, or holds a password.
        """
        scheme, rest = split_address(spec) or ("", "")
        authority, _, topic = rest.partition("/")
        user, _, place = authority.rpartition("@")
        wrong = (
            f"{printable(spec)} is no broker. Write mqtt://HOST or mqtt://HOST:1883; a user stands before HOST, with "
            "an at sign between them."
        )
        if "@" in topic or "?" in rest:
            raise UsageError(wrong)
        if ":" in user:
            raise UsageError(
                f"{printable(spec)} holds a password, which would stand in logs and lists of processes. Write it into "
                "a file of its own and name that in mqtt.password_file."
            )
        if place.startswith("["):
            host, _, port = place[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = place.partition(":")
        number = int(port) if port.isdecimal() and len(port) < 6 else 0
        if not host or (port and not 0 < number < 65536) or any(letter.isspace() for letter in host):
            raise UsageError(wrong)
        tls = scheme == "mqtts"
        return cls(host, number or (8883 if tls else 1883), unquote(user), tls, unquote(topic) or default_topic)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


def filled(template: str, device: str) -> str:
    """A topic of its template, in which ``{device}`` stands for the device's id.

    Raises:
        UsageError: that is no topic that something can be published to.
    """
    wrong = f"The topic {template[:80]!r} of MQTT"
    rest = template.replace("{device}", "")
    if "{" in rest or "}" in rest:
        raise UsageError(f"{wrong} has a placeholder that is not known. There is {{device}} alone.")
    if any(letter in "+#" or not letter.isprintable() for letter in template):
        raise UsageError(f"{wrong} may hold neither + nor # nor what cannot be printed: nothing is published to those.")
    if template.startswith("$") or "" in template.split("/") or len(template.encode(errors="replace")) > 1024:
        raise UsageError(
            f"{wrong} must be levels with a / between them, as in edge-fer/{{device}}, and not begin with $."
        )
    return template.replace("{device}", device_id(device))


def read_password(settings: MqttSettings) -> str | None:
    """The password of its file, or of systemd's credential; None where there is neither.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    path = secret_file("mqtt.password_file", settings.password_file)
    if not path:
        return None
    try:
        password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"mqtt.password_file: {path} cannot be read: {why}.") from None
    if not password or "\n" in password:
        raise ConfigError(f"mqtt.password_file: {path} must hold one line, the password.")
    return password


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """What a broker must show, and what it is shown.

    Raises:
        ConfigError: a file is missing, or no certificate.
    """
    if bool(settings.cert_file) != bool(settings.key_file):
        raise ConfigError("mqtt.cert_file and mqtt.key_file belong together: name both, or none.")
    files = {}
    for key in ("ca_file", "cert_file", "key_file"):
        files[key] = secret_file(f"mqtt.{key}", getattr(settings, key)) if getattr(settings, key) else ""
        if files[key] and not os.access(files[key], os.R_OK):
            raise ConfigError(f"mqtt.{key}: {files[key]} is not there, or cannot be read.")
    try:
        context = ssl.create_default_context(cafile=files["ca_file"] or None)
        if files["cert_file"]:
            context.load_cert_chain(files["cert_file"], files["key_file"], lambda: "")  # asks nobody
    except (ssl.SSLError, OSError) as error:
        named = " or ".join(name for name in (settings.ca_file, settings.cert_file, settings.key_file) if name)
        raise ConfigError(f"{named} is no certificate, or not its key, in PEM: {error.strerror or error}.") from None
    return context


class Access(NamedTuple):
    """All that one output needs to use a broker.

    Attributes:
        broker: see ``Broker``.
        base: topic of the device.
        prefix: topic of Home Assistant's discovery; "" for none.
        password: of the broker's user; None for none.
        tls: what the broker must show, and what it is shown; None for a connection in the clear.
    """

    broker: Broker
    base: str
    prefix: str
    password: str | None
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, spec: str, settings: MqttSettings, device: str) -> Access:
        """What an address and the settings say.

        Raises:
            UsageError: the address or a topic is wrong.
            ConfigError: the password or a certificate cannot be read.
        """
        broker = Broker.parse(spec, "edge-fer/{device}")
        base = filled(broker.topic, device)
        prefix = filled(settings.discovery, device) if settings.discovery and settings.payload != "flat" else ""
        password = read_password(settings)
        if password and not broker.user:
            raise UsageError(f"{broker} is given a password and no user: name one in the address, before the host.")
        return cls(broker, base, prefix, password, tls_context(settings) if broker.tls else None)
