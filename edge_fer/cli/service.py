"""``edge-fer service``: the unit of systemd, put in place, taken away, asked how it is."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config_file import new_file
from edge_fer.errors import EdgeFerError, UnavailableError
from edge_fer.files import make_folder, write_atomically
from edge_fer.layers import load_settings
from edge_fer.service import unit

EXAMPLES = """examples:
  sudo edge-fer service install       write the unit, enable it and start it
  edge-fer service status             is it running, what does it do, how much memory does it use
  edge-fer service logs --follow      what it says
  sudo systemctl reload edge-fer      take over what has changed in the configuration, where that is live
  sudo edge-fer service configure     outputs or cameras have changed: let it into the network for those, or no more
  sudo edge-fer service uninstall     configuration and recordings stay

install reads the configuration: where it names cameras or outputs of the network, the service is let into networks at
home, and with --internet into all; else into none. Secrets lie beside the configuration, readable by root alone:
/etc/edge-fer/mqtt-password and /etc/edge-fer/web-token.
"""

_SHOWN = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "StatusText",
    "MainPID",
    "NRestarts",
    "MemoryCurrent",
)


def add_service(verbs: Verbs) -> None:
    """Add the verb."""
    service = add_verb(verbs, "service", "run edge-fer at every start of this machine, by systemd", EXAMPLES)
    actions = service.add_subparsers(dest="action", required=True, metavar="ACTION")
    install = actions.add_parser("install", help="write the unit, enable it and start it")
    install.add_argument("--config", type=Path, default=unit.CONFIG, metavar="TOML", help=f"(default: {unit.CONFIG})")
    install.add_argument("--internet", action="store_true", help="let the service beyond networks at home")
    install.add_argument("--no-start", action="store_true", help="write and enable it, and start it with the machine")
    install.set_defaults(act=_install)
    configure = actions.add_parser("configure", help="open the network for what the configuration names, and no more")
    configure.add_argument("--config", type=Path, default=unit.CONFIG, metavar="TOML", help=f"(default: {unit.CONFIG})")
    configure.add_argument("--internet", action="store_true", help="let the service beyond networks at home")
    configure.set_defaults(act=_configure)
    actions.add_parser("uninstall", help="stop it and take the unit away").set_defaults(act=_uninstall)
    status = actions.add_parser("status", help="how it is; exit code 69 if it does not run")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(act=_status)
    logs = actions.add_parser("logs", help="what it has said")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what it says")
    logs.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="so many of the last (default: 50)")
    logs.set_defaults(act=_logs)
    for action in (install, configure, status, logs, service):
        action.set_defaults(tries_libraries=False)


def _install(args: argparse.Namespace) -> None:
    _as_root("install")
    config = args.config.absolute()
    program = Path(sys.executable).parent / "edge-fer"
    text = unit.unit_text(str(program) if program.exists() else f"{sys.executable} -m edge_fer", config)
    if not config.exists():
        make_folder(config.parent)
        write_atomically(config, new_file().encode())
        config.chmod(0o644)
        print(f"{config} has every setting at its default, with a comment.")
    extra = unit.drop_in(load_settings(config, {}, {}), config.parent, internet=args.internet)
    path = unit.UNITS / unit.NAME
    _write(path, text)
    _write_drop_in(extra)
    _systemctl("daemon-reload")
    _systemctl("enable", "--quiet", unit.NAME)
    if not args.no_start:
        _systemctl("restart", unit.NAME)
    print(f"{path} is in place{'' if args.no_start else ' and runs'}: edge-fer service status")
    print(_about_network(extra))


def _configure(args: argparse.Namespace) -> None:
    """What ``install`` does, without the unit, which the installer of a card puts in place, and without a start."""
    _as_root("configure")
    config = args.config.absolute()
    extra = unit.drop_in(load_settings(config, {}, {}), config.parent, internet=args.internet)
    _write_drop_in(extra)
    if unit.RUNNING.exists():
        _systemctl("daemon-reload")
    print(_about_network(extra))


def _about_network(extra: str) -> str:
    users = next((line.removeprefix("# For ")[:-1] for line in extra.splitlines() if line.startswith("# For")), "")
    return f"The network is open for {users}." if users else "The service has no network: nothing asks for one."


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
    path.chmod(0o644)


def _write_drop_in(text: str) -> None:
    folder = unit.UNITS / f"{unit.NAME}.d"
    path = folder / "configuration.conf"
    if text:
        make_folder(folder)
        _write(path, text)
    else:
        path.unlink(missing_ok=True)


def _uninstall(args: argparse.Namespace) -> None:
    _as_root("uninstall")
    path = unit.UNITS / unit.NAME
    if not path.exists():
        print(f"{path} is not there: nothing to do.")
        return
    _systemctl("disable", "--now", "--quiet", unit.NAME)
    path.unlink()
    _write_drop_in("")
    _systemctl("daemon-reload")
    print(f"{path} is gone. {unit.CONFIG.parent} and /var/lib/edge-fer stay: delete them by hand.")


def _status(args: argparse.Namespace) -> None:
    said = _systemctl("show", unit.NAME, f"--property={','.join(_SHOWN)}")
    shown = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if shown.get("LoadState") == "not-found":
        raise UnavailableError("The service is not installed: sudo edge-fer service install.")
    memory = shown.get("MemoryCurrent", "")
    table = {
        "active": shown.get("ActiveState", ""),
        "state": shown.get("SubState", ""),
        "does": shown.get("StatusText", ""),
        "enabled": shown.get("UnitFileState", ""),
        "pid": int(shown.get("MainPID") or 0) or None,
        "restarts": int(shown.get("NRestarts") or 0),
        "memory_mb": round(int(memory) / 1e6, 1) if memory.isdecimal() and int(memory) < 1 << 63 else None,
    }
    if args.json:
        print(json.dumps(table))
    else:
        for name, value in table.items():
            print(f"{name.replace('_mb', ' (MB)'):<12} {'-' if value in (None, '') else value}")
    if table["active"] not in ("active", "reloading"):
        raise UnavailableError(f"The service is {table['active']}: edge-fer service logs says why.")


def _logs(args: argparse.Namespace) -> None:
    command = ["journalctl", "--no-pager", "--unit", unit.NAME, "--lines", str(args.lines)]
    sys.stdout.flush()
    done = subprocess.run([_program("journalctl"), *command[1:], *(["--follow"] if args.follow else [])], check=False)
    if done.returncode:
        raise EdgeFerError("journalctl has nothing to show: see what it says, or ask as root.")


def _as_root(action: str) -> None:
    if os.geteuid() != 0:
        program = Path(sys.executable).parent / "edge-fer"
        raise EdgeFerError(f"This needs root: sudo {program} service {action}.")


def _systemctl(*arguments: str) -> str:
    done = subprocess.run([_program("systemctl"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it does not say why."]
        raise UnavailableError(f"systemctl {arguments[0]}: {said[0].rstrip('.')}. edge-fer service logs may say more.")
    return done.stdout


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(f"{name} is not here: the service needs a system with systemd.")
    return path
