#!/bin/sh
# Installs edge-fer as a service on Raspberry Pi OS, or updates it: may be run any number of times.
# cloud-init runs it at first boot; by hand: sudo sh /boot/firmware/edge-fer/install.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if [ "$(id -u)" -ne 0 ]; then
    echo "Run this as root: sudo sh $0" >&2
    exit 1
fi

wheel=$(find "$here" -maxdepth 1 -name 'edge_fer-*.whl' | sort -V | tail -n 1)
if [ -z "$wheel" ]; then
    echo "No edge_fer-*.whl in $here: make one in the repository with 'pip wheel --no-deps .' and copy it there." >&2
    exit 1
fi

# The board has no clock of its own, and with a wrong time no certificate is valid.
for _ in $(seq 60); do
    [ "$(timedatectl show --property=NTPSynchronized --value)" = yes ] && break
    sleep 2
done

export DEBIAN_FRONTEND=noninteractive
# At first boot the daily update of the package lists may hold the lock.
apt-get -o DPkg::Lock::Timeout=300 update
# The recommended packages are the desktop's preview windows.
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends python3-venv python3-picamera2

# picamera2 and libcamera exist only as system packages: the environment must see them.
python3 -m venv --system-site-packages /opt/edge-fer

# /tmp is in memory, and the packages are large for a board with 512 MB.
export TMPDIR=/var/tmp
/opt/edge-fer/bin/pip install --no-cache-dir "$wheel"
# pip takes a wheel of the version that is there already for the same one, which a newer build need not be.
/opt/edge-fer/bin/pip install --no-cache-dir --no-deps --force-reinstall "$wheel"

# What somebody has changed on the board stays.
if [ ! -e /etc/edge-fer/config.toml ]; then
    install -D -m 644 "$here/edge-fer.toml" /etc/edge-fer/config.toml
fi
install -D -m 644 "$here/99-edge-fer-coral.rules" /etc/udev/rules.d/99-edge-fer-coral.rules
udevadm control --reload
udevadm trigger --subsystem-match=usb
install -D -m 644 "$here/edge-fer.service" /etc/systemd/system/edge-fer.service
systemctl daemon-reload
systemctl enable edge-fer.service
systemctl restart edge-fer.service
echo "edge-fer is running: journalctl -u edge-fer -f"
