"""``edge-fer doctor``: one page about this machine, and a command for all that is red."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import Settings, default_file
from edge_fer.errors import EdgeFerError, printable
from edge_fer.layers import load_settings, mistakes

if TYPE_CHECKING:
    from edge_fer.doctor.machine import Finding

EXAMPLES = """examples:
  edge-fer doctor
  edge-fer doctor --json | jq '.checks[] | select(.level == "red")'
  edge-fer doctor --config /etc/edge-fer/config.toml

green: good.  yellow: works, but look at it.  red: edge-fer does not work so; the command below mends it.
exit code: 0 where nothing is red, else 1.
"""

COLORS = {"green": "32", "yellow": "33", "red": "31"}
"""Of a terminal. The words stand there as well."""


def add_doctor(verbs: Verbs) -> None:
    """Add the verb."""
    doctor = add_verb(
        verbs, "doctor", "look for what keeps edge-fer from working here, and say what mends it", EXAMPLES
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--config", type=Path, metavar="TOML", help="configuration file, as for run")
    doctor.set_defaults(act=_doctor, tries_libraries=False)


def _doctor(args: argparse.Namespace) -> None:
    from edge_fer.doctor import examine
    from edge_fer.doctor.machine import Machine

    wrong = mistakes(args.config, os.environ)
    settings = Settings() if wrong else load_settings(args.config, os.environ, {})
    findings = []
    for name, finding in examine(Machine(settings, args.config or default_file(), tuple(wrong))):
        findings.append((name, finding))
        if not args.json:
            _print(name, finding)
    red = [name for name, finding in findings if finding.level == "red"]
    if args.json:
        worst = next((level for level in ("red", "yellow") if any(one.level == level for _, one in findings)), "green")
        checks = [{"check": name, **vars(finding)} for name, finding in findings]
        print(json.dumps({"level": worst, "checks": checks}, indent=2))
    if red:
        raise EdgeFerError(f"Red: {', '.join(dict.fromkeys(red))}. The command below each mends it.")
    if not args.json:
        print("\nNothing is red. `edge-fer cameras --snapshot SOURCE` shows what a camera sees.")


def _print(name: str, finding: Finding) -> None:
    level = f"{finding.level:6}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        level = f"\033[{COLORS[finding.level]}m{level}\033[0m"
    indent = " " * 22
    width = max(60, min(120, shutil.get_terminal_size().columns)) - len(indent)
    lines = textwrap.wrap(printable(finding.text), width, break_on_hyphens=False, break_long_words=False)
    print(f"{level}  {name:14}{lines[0]}", *(f"{indent}{line}" for line in lines[1:]), sep="\n")
    if finding.cure:
        print(f"{indent}$ {printable(finding.cure)}")
    sys.stdout.flush()
