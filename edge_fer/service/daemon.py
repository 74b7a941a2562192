"""What a service does beside recognizing: tells systemd, remembers a pause, spares a hot board, reads settings anew."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_fer.config import Settings, all_settings, value_of
from edge_fer.control import Control
from edge_fer.errors import EdgeFerError
from edge_fer.files import mode_of, write_atomically
from edge_fer.pipeline import Pipeline
from edge_fer.service.governor import Governor
from edge_fer.systemd import Service

log = logging.getLogger("edge_fer")


class Daemon:
    """Called by the loop after each frame, and some five times a second without.

    Args:
        service: systemd.
        settings: with which the service has started.
        load: reads the settings again.
        environ: STATE_DIRECTORY is where a pause is remembered, across restarts and power cuts.
        governor: None for one of the settings.

    Attributes:
        control: of the pipeline; it begins paused where it was paused when the last run ended.
        pipeline: set as soon as there is one.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        load: Callable[[], Settings],
        environ: Mapping[str, str],
        governor: Governor | None = None,
    ) -> None:
        folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        self._mark = Path(folder, "paused") if folder else None
        self._marked = self._mark is not None and mode_of(self._mark) != 0
        self.control = Control(paused=self._marked)
        self.pipeline: Pipeline | None = None
        self._service = service
        self._settings = settings
        self._load = load
        self._governor = governor or Governor(settings.governor)
        self._names = ", ".join(camera.name or camera.source for camera in settings.all_cameras)
        self._reload = False
        if self._marked:
            log.warning(
                "It begins paused, as it was when it ended. MQTT, the web page or %s opens the camera.", self._cure
            )

    @property
    def _cure(self) -> str:
        return f"`sudo rm {self._mark}` before a restart"

    @property
    def frame_s(self) -> float:
        """How long a frame lasts at least, for the governor."""
        rate_hz = self._governor.effort.rate_hz
        return 1 / rate_hz if rate_hz else 0.0

    def request_reload(self) -> None:
        """Have the settings read again, soon; may be called by a signal handler."""
        self._reload = True

    def idle(self) -> None:
        """Do what is due."""
        self._service.tell(self.control, self._names)
        if self.control.paused != self._marked:
            self._remember()
        if self._governor.look():
            self._spare()
        if self._reload:
            self._reload = False
            self._read_again()

    def _remember(self) -> None:
        self._marked = self.control.paused
        if self._mark is None:
            return
        try:
            if self._marked:
                write_atomically(
                    self._mark, b"The camera was switched off. Without this file it is opened at the next start.\n"
                )
            else:
                self._mark.unlink(missing_ok=True)
        except (OSError, EdgeFerError) as error:
            log.warning("A restart will not know of the pause: %s", error)

    def _spare(self) -> None:
        assert self.pipeline is not None  # it calls
        self.control.effort = self._governor.text
        self.pipeline.search_later(self._governor.effort.search)
        log.warning("Effort: %s.", self._governor.text or "full again")

    def _read_again(self) -> None:
        """Take over what can change while a stream runs; say what cannot. A mistake changes nothing."""
        assert self.pipeline is not None
        self._service.reloading()
        try:
            new = self._load()
            changed = [one for one in all_settings() if value_of(new, one.key) != value_of(self._settings, one.key)]
            live = [one.key for one in changed if one.setting.live]
            if any(key.startswith(("detector.", "model.")) for key in live):
                self.pipeline.reload(new)
            self._governor.settings = new.governor
            self._settings = dataclasses.replace(
                self._settings, detector=new.detector, model=new.model, governor=new.governor
            )
        except EdgeFerError as error:
            log.warning("The configuration is read again and cannot be used: %s Nothing has changed.", error)
            return
        finally:
            self._service.reloaded()
        if live:
            log.warning("The configuration is read again: %s changed.", ", ".join(live))
        if rest := [one.key for one in changed if not one.setting.live]:
            log.warning("%s: only a restart takes that over, sudo systemctl restart edge-fer.", ", ".join(rest))
        if not changed:
            log.warning("The configuration is read again: nothing has changed.")
