"""Makes what people download: for each system one archive with all that a board needs, offline, and a signature.

    python firmware_configs/release.py --wheel dist/edge_fer-*.whl --key KEY     (`make release` calls it)

The archive holds one folder, ``edge-fer``, which goes onto the boot partition as it is:

    wheels/            the package and all that it needs, for this system and aarch64 alone
    requirements.txt   what pip installs, each wheel by its hash
    requirements-picamera2.txt   the same but for NumPy, which there is the system's
    release            for which system, which version
    SHA256SUMS         of all files but those that people fill in; SHA256SUMS.sig, made and checked by ssh-keygen -Y
    allowed_signers    whose signature counts, as long as a board has not been installed by another
    sbom.json          CycloneDX
    ...                the files of this folder: install.sh checks and uses all of the above by itself
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FIRMWARE = Path(__file__).parent
ROOT = FIRMWARE.parent
NAMESPACE = "edge-fer-release"
"""What a signature is for, so that one of something else made with the same key does not count."""

FILLED_IN = {"edge-fer.toml", "user-data", "network-config", "meta-data"}
"""Templates: people change them on the card."""

NOT_ON_A_CARD = ("image/", "release.py")

PIP = "pip==26.2.1"
"""Brings itself to the board: Raspberry Pi OS Lite may lack python3-venv, and with it pip."""


@dataclass(frozen=True)
class System:
    """A system that a board runs.

    Attributes:
        codename: of the Debian release.
        python: its Python.
        glibc: minor version of its C library: wheels for that or an earlier one can be loaded.
    """

    codename: str
    python: str
    glibc: int

    def platforms(self) -> list[str]:
        """Tags of the wheels that run there, the one that pip prefers first."""
        return [f"manylinux_2_{minor}_aarch64" for minor in range(self.glibc, 16, -1)] + ["manylinux2014_aarch64"]


SYSTEMS = (System("trixie", "3.13", 41), System("bookworm", "3.11", 36))


def fetch_wheels(system: System, into: Path) -> None:
    """The wheels of the lock file, and pip, for a system. Raises CalledProcessError."""
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(into), "--python-version", system.python]
    for platform in system.platforms():
        options += ["--platform", platform]
    download = [sys.executable, "-m", "pip", "download", *options]
    subprocess.run([*download, "--require-hashes", "-r", ROOT / "requirements.lock"], check=True)
    subprocess.run([*download, PIP], check=True)


def requirements(wheels: Path, without: tuple[str, ...] = ()) -> str:
    """One line for each wheel of a folder, with its hash: nothing else is installed, nothing is chosen on the board."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        name = name.replace("_", "-").lower()
        if name not in (*without, "pip"):
            lines.append(f"{name}=={version} --hash=sha256:{sha256(wheel)}\n")
    return "".join(lines)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def fill(folder: Path, system: System, version: str) -> None:
    """Put all but wheels, SBOM and signature into a release's folder, in which ``wheels`` is there already."""
    for path in FIRMWARE.rglob("*"):
        name = path.relative_to(FIRMWARE).as_posix()
        if path.is_file() and not name.startswith(NOT_ON_A_CARD) and path.suffix not in (".pyc", ".whl"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(path.read_bytes())
    (folder / "requirements.txt").write_text(requirements(folder / "wheels"))
    (folder / "requirements-picamera2.txt").write_text(requirements(folder / "wheels", without=("numpy",)))
    (folder / "release").write_text(f"VERSION={version}\nCODENAME={system.codename}\nPYTHON={system.python}\n")


def write_sbom(folder: Path) -> None:
    """``sbom.json`` of what is installed. Raises CalledProcessError."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    command = [tool, "requirements", folder / "requirements.txt", "--output-reproducible", "--of", "JSON"]
    subprocess.run([*command, "-o", folder / "sbom.json"], check=True, capture_output=True)


def sign(folder: Path, key: Path) -> None:
    """Write checksums of all files that nobody fills in, who may sign, and the signature. Raises CalledProcessError.

    Args:
        folder: the release.
        key: a private SSH key; an agent or a hardware key works through its public half.
    """
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    kind, value = public.read_text().split()[:2]
    (folder / "allowed_signers").write_text(f'edge-fer namespaces="{NAMESPACE}" {kind} {value}\n')
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    sums = [f"{sha256(folder / name)}  {name}\n" for name in names if name not in FILLED_IN]
    (folder / "SHA256SUMS").write_text("".join(sums))
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, folder / "SHA256SUMS"],
        check=True,
        capture_output=True,
    )


def pack(folder: Path, archive: Path) -> None:
    """Write a ZIP archive, which every laptop unpacks: the same files give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = PurePosixPath("edge-fer", path.relative_to(folder).as_posix())
                info = zipfile.ZipInfo(str(name), (2020, 1, 1, 0, 0, 0))
                info.external_attr = 0o644 << 16
                info.compress_type = zipfile.ZIP_STORED if path.suffix == ".whl" else zipfile.ZIP_DEFLATED
                file.writestr(info, path.read_bytes())


def make(system: System, wheel: Path, key: Path, into: Path) -> Path:
    """Make the release of a system; returns its archive. Raises CalledProcessError."""
    match = re.fullmatch(r"edge_fer-([\w.]+)-py3-none-any\.whl", wheel.name)
    if match is None:
        sys.exit(f"release: {wheel.name} is not a wheel of edge-fer.")
    version = match[1]
    archive = into / f"edge-fer-{version}-{system.codename}-arm64.zip"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "edge-fer")
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        fetch_wheels(system, wheels)
        (wheels / wheel.name).write_bytes(wheel.read_bytes())
        fill(folder, system, version)
        write_sbom(folder)
        sign(folder, key)
        pack(folder, archive)
    return archive


def main() -> None:
    """The command; ends with one sentence where a tool that it calls fails."""
    parser = argparse.ArgumentParser(description="Make the archives that people download.")
    parser.add_argument("--wheel", type=Path, required=True, help="the wheel of edge-fer")
    parser.add_argument("--key", type=Path, required=True, help="the SSH key that signs: ssh-keygen -t ed25519 -f KEY")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="folder of the archives (default: dist)")
    args = parser.parse_args()
    for system in SYSTEMS:
        try:
            archive = make(system, args.wheel, args.key, args.into)
        except (subprocess.CalledProcessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            sys.exit(f"release: {error} {said.decode(errors='replace').strip()}")
        print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB, SHA-256 {sha256(archive)}")


if __name__ == "__main__":
    main()
