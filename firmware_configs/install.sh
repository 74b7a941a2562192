#!/bin/sh
# Installs edge-fer as a service on Raspberry Pi OS, or updates it, from the release in this folder: without a network,
# any number of times, and whole or not at all. By hand: sudo sh /boot/firmware/edge-fer/install.sh
# Exit codes: 0 done or already there; 65 this release cannot be installed here; 69 something may come later; 1 else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/edge-fer
config=/etc/edge-fer/config.toml
trusted=/etc/edge-fer/allowed_signers

fail() { # CODE SENTENCE
    echo "install.sh: $2" >&2
    exit "$1"
}

[ "$(id -u)" -eq 0 ] || fail 1 "Run this as root: sudo sh $0"

# Is the release whole, and by whom this board trusts? The first release that is installed says who that is.
signers=$trusted
[ -e "$signers" ] || signers=$here/allowed_signers
for name in release requirements.txt SHA256SUMS SHA256SUMS.sig allowed_signers; do
    [ -s "$here/$name" ] || fail 65 "$here/$name is missing: copy the folder edge-fer of a release there, all of it."
done
command -v ssh-keygen >/dev/null || fail 69 "ssh-keygen, which checks the signature, is missing: apt install openssh-client."
said=$(ssh-keygen -q -Y verify -f "$signers" -I edge-fer -n edge-fer-release -s "$here/SHA256SUMS.sig" \
    <"$here/SHA256SUMS" 2>&1) ||
    fail 65 "The signature of this release is not by the one that $signers names ($(echo "$said" | tr -d '\r' | tail -n 1)): download it \
again, or, if you trust this release, delete that file."
damaged=$(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS 2>/dev/null | sed 's/: .*//' | head -n 1)
[ -z "$damaged" ] || fail 65 "$here/$damaged is missing or not as it was signed: copy the release to the card again."

# Is it for this system?
of() { sed -n "s/^$1=//p" "$2" | tr -d '"'; }
codename=$(of CODENAME "$here/release")
system=$(of VERSION_CODENAME /etc/os-release)
[ "$(dpkg --print-architecture)" = arm64 ] ||
    fail 65 "This system has 32 bits, and edge-fer needs 64: write the card with Raspberry Pi OS (64-bit)."
[ "$codename" = "$system" ] ||
    fail 65 "This release is for $codename and this system is $system: download edge-fer-...-$system-arm64.zip."

# Which camera? picamera2 comes from the system and wants the system's NumPy; nothing else does.
asked=$config
[ -e "$asked" ] || asked=$here/edge-fer.toml
uses_picamera() { # CONFIGURATION: read as edge-fer reads it; one that is damaged names no camera, and is said later
    python3 - "$1" 2>/dev/null <<'EOF'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    content = file.read()
settings = tomllib.loads(content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"))
cameras = settings.get("cameras") or [settings["camera"]]
sys.exit(not any(camera.get("source", "").partition(":")[0] == "picamera" for camera in cameras))
EOF
}
pin=requirements.txt
ribbon= # how a new configuration names the ribbon cable's camera, if not as it was asked for
get() { # PACKAGE
    # At first boot the daily update of the package lists may hold the lock.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$1"
}
if uses_picamera "$asked"; then
    if [ "$system" != bookworm ] && python3 -c 'import picamera2' 2>/dev/null; then
        pin=requirements-picamera2.txt
    elif command -v rpicam-vid >/dev/null || get rpicam-apps-lite; then
        # Without picamera2, or with Bookworm's, which wants NumPy 1.
        ribbon=rpicam
    else
        fail 69 "The ribbon camera needs the package rpicam-apps-lite or python3-picamera2, and neither is on this card: \
connect the board to the internet until it is installed."
    fi
fi

# While an image is made no system runs: what belongs to one board is left to its first boot.
runs=$([ ! -d /run/systemd/system ] || echo yes)

# Done already? The link names an environment once that is whole, so that it is not built again. The file in it says that
# all the rest is done too: not while an image is made, and not where the power failed in between.
mark=$(sha256sum "$here/SHA256SUMS" | cut -c 1-12)
[ "$pin" = requirements.txt ] || mark=$mark-picamera2
environment=$prefix-$mark
unit=/etc/systemd/system/edge-fer.service
if [ "$(readlink "$prefix" || true)" = "$environment" ] && [ -d "$environment" ]; then
    if [ -e "$environment/installed" ] && [ -e "$config" ] && [ -e "$unit" ]; then
        echo "edge-fer $(of VERSION "$here/release") is installed already."
        exit 0
    fi
    rm -f "$environment/installed"
else
    # A new environment beside the one that runs. It needs neither pip nor python3-venv of the system.
    rm -rf "$environment"
    if [ "$pin" = requirements.txt ]; then
        python3 -m venv --without-pip "$environment"
    else
        python3 -m venv --without-pip --system-site-packages "$environment"
    fi
    pip=$(echo "$here"/wheels/pip-*.whl)
    # /tmp is in memory, and the packages are large for a board with 512 MB.
    TMPDIR=/var/tmp "$environment/bin/python" "$pip/pip" install --quiet --no-cache-dir --no-index \
        --find-links "$here/wheels" --require-hashes -r "$here/$pin"
    "$environment/bin/edge-fer" models verify
fi

# What somebody has changed on the board stays. So nothing half written may pass for it: it is on the card before it
# gets its name.
mkdir -p /etc/edge-fer
if [ -n "$runs" ] && [ ! -e "$config" ]; then
    cp "$here/edge-fer.toml" "$config.new"
    [ -z "$ribbon" ] ||
        sed -i -E "/^[[:space:]]*#/!s/(\<source[\"']?[[:space:]]*=[[:space:]]*[\"']+)picamera/\1$ribbon/g" "$config.new"
    chmod 644 "$config.new"
    sync "$config.new"
    mv "$config.new" "$config"
    asked=$config
fi
if [ -n "$ribbon" ] && uses_picamera "$asked"; then
    echo "There is no picamera2 for edge-fer here: write source = \"rpicam:0\" in $config."
fi
if [ ! -e "$trusted" ]; then
    install -m 644 "$here/allowed_signers" "$trusted.new"
    sync "$trusted.new"
    mv "$trusted.new" "$trusted"
fi
install -D -m 644 "$here/99-edge-fer-coral.rules" /etc/udev/rules.d/99-edge-fer-coral.rules
if [ -n "$runs" ]; then
    udevadm control --reload
    udevadm trigger --subsystem-match=usb
fi
install -D -m 644 "$here/edge-fer.service" "$unit"
# The network, for cameras and outputs that are in it; what is wrong in a configuration is said here and by the service.
[ ! -e "$config" ] || "$environment/bin/edge-fer" service configure --config "$config" || true
sync

# From here on the new one counts. An earlier version had a folder of this name.
[ -L "$prefix" ] || rm -rf "$prefix"
ln -sfn "$environment" "$prefix.new"
mv -T "$prefix.new" "$prefix"
if [ -n "$runs" ]; then
    systemctl daemon-reload
    systemctl enable --quiet edge-fer.service
fi
for old in "$prefix"-*; do
    [ "$old" = "$environment" ] || rm -rf "$old"
done
sync
version=$(of VERSION "$here/release")
if [ -z "$runs" ] || systemctl restart edge-fer.service; then
    said="edge-fer $version is installed: journalctl -u edge-fer -f"
else
    said="edge-fer $version is installed and does not start: journalctl -u edge-fer says why."
fi
if [ -n "$runs" ]; then
    touch "$environment/installed"
    sync
fi
echo "$said"
