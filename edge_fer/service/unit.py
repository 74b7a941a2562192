"""The unit of systemd: what stands in the package, made fit for this environment and this configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from edge_fer.address import NETWORK, printable, split_address
from edge_fer.config import Settings, value_of
from edge_fer.credentials import BESIDE, SETTINGS, credential_of
from edge_fer.errors import UsageError
from edge_fer.files import mode_of

NAME = "edge-fer.service"
UNITS = Path("/etc/systemd/system")
"""Where an administrator's units are."""
RUNNING = Path("/run/systemd/system")
"""Is there where systemd runs: not while an image is made."""
CONFIG = Path("/etc/edge-fer/config.toml")
LOCAL = "localhost link-local 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"
"""Networks at home, as systemd.resource-control(5) writes them."""

_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


def unit_text(program: str, config: Path) -> str:
    """The unit that starts a program of this environment.

    Args:
        program: of the command, and what comes before ``run``.
        config: its configuration.

    Raises:
        UsageError: the unit hides the folder of the program or of the configuration from the service.
    """
    for path in (program.split()[0], str(config)):
        hidden = next((one for one in _HIDDEN if path.startswith(f"{one}/")), None)
        if hidden:
            raise UsageError(
                f"The service does not see {hidden}, and {path} lies there. Install edge-fer elsewhere: "
                "sudo python3 -m venv /opt/edge-fer, then sudo /opt/edge-fer/bin/pip install 'edge-fer[service]'."
            )
        if re.search(r"[\s\"'\\%$;]", path):
            raise UsageError(f"{path} has a letter in its name that units of systemd have another use for.")
    text = (Path(__file__).parent / NAME).read_text(encoding="utf-8")
    return re.sub(r"(?m)^ExecStart=.*$", f"ExecStart={program} run --config {config}", text)


def drop_in(settings: Settings, folder: Path, *, internet: bool = False) -> str:
    """What a configuration needs beyond the unit; "" where it needs nothing.

    Args:
        settings: the configuration.
        folder: where it lies, and secrets beside it.
        internet: open the way beyond networks at home too.
    """
    lines: list[str] = []
    if users := [*_in_network(settings)]:
        lines += [f"# For {', '.join(users)}.", "RestrictAddressFamilies=AF_INET AF_INET6"]
        lines.append("IPAddressDeny=" if internet else f"IPAddressAllow={LOCAL}")
    lines += [f"LoadCredential={name}:{path}" for name, path in _secrets(settings, folder)]
    head = (
        "# Made by `edge-fer service configure` of the configuration; run it again when that has changed.\n[Service]\n"
    )
    return head + "\n".join(lines) + "\n" if lines else ""


def _secrets(settings: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    """Credentials, each with its file: systemd does not start a service whose file is not there."""
    for key in SETTINGS:
        name, named = credential_of(key), value_of(settings, key)
        path = Path(named) if named or key not in BESIDE else folder / name
        if path.is_absolute() and S_ISREG(mode_of(path)):
            yield name, str(path).replace("%", "%%")


def _in_network(settings: Settings) -> Iterator[str]:
    """Cameras and outputs of the network, without their secrets."""
    for camera in settings.all_cameras:
        scheme, _ = split_address(camera.source) or ("file", "")
        if scheme != "file":
            yield printable(camera.source)
    for spec in settings.outputs:
        if spec.partition(":")[0] in NETWORK:
            yield printable(spec)
