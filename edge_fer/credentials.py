"""Files that only root may read, and how a service with a user of its own gets them: systemd's credentials.

systemd reads the file as root, and lays a copy into the folder that the variable CREDENTIALS_DIRECTORY names
(``LoadCredential=`` in systemd.exec(5)). ``edge-fer service configure`` writes those lines.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

from edge_fer.config import Settings, value_of
from edge_fer.files import mode_of

SETTINGS = (
    *("mqtt.password_file", "mqtt.ca_file", "mqtt.cert_file", "mqtt.key_file"),
    *("web.token_file", "web.cert_file", "web.key_file"),
)
"""The settings that name such files."""
BESIDE = ("mqtt.password_file", "web.token_file")
"""Those whose file may lie beside the configuration, under the credential's name, without being named in it."""


def credential_of(setting: str) -> str:
    """The name of a setting's credential: ``mqtt-password`` of ``mqtt.password_file``."""
    return setting.removesuffix("_file").replace(".", "-")


def secret_file(setting: str, named: str) -> str:
    """The file to read: the named one, or the credential where that cannot be read or none is named; "" for neither."""
    handed_over = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""), credential_of(setting))
    named = os.path.expanduser(named)  # noqa: PTH111 - see sinks
    if (named and os.access(named, os.R_OK)) or not (handed_over.is_absolute() and S_ISREG(mode_of(handed_over))):
        return named
    return str(handed_over)


def roots_alone(settings: Settings, section: str) -> bool:
    """Whether a section names a file that is there and that this user may not read."""
    named = [value_of(settings, key) for key in SETTINGS if key.startswith(f"{section}.")]
    return any(name and S_ISREG(mode_of(name)) and not os.access(name, os.R_OK) for name in named)
