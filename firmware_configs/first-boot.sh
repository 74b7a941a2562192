#!/bin/sh
# Has a new card install edge-fer by itself, and try again until it has.
#   first-boot.sh        puts edge-fer-setup.service in place, starts it and returns at once: cloud-init calls this
#   first-boot.sh run    is that service: install.sh, how far it has come on the boot partition, and by the LED
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != run ]; then
    install -D -m 644 "$here/edge-fer-setup.service" /etc/systemd/system/edge-fer-setup.service
    if [ ! -d /run/systemd/system ]; then # an image is being made
        exec systemctl enable --quiet edge-fer-setup.service
    fi
    systemctl daemon-reload
    systemctl enable --quiet edge-fer-setup.service
    sync # cloud-init remembers that this was done, and does not come again
    exec systemctl start --no-block edge-fer-setup.service
fi

log=/run/edge-fer-setup.log
unit=/etc/systemd/system/edge-fer.service

status() { # SENTENCE: what any computer shows that reads the card
    {
        echo "$1"
        echo
        echo "Written by the board $(hostname) $(cut -d . -f 1 /proc/uptime) seconds after its start; its clock said $(date)."
        if [ -s "$log" ]; then
            echo
            tail -n 20 "$log"
        fi
    } >"$here/../edge-fer-status.new" && mv "$here/../edge-fer-status.new" "$here/../edge-fer-status.txt" && sync || true
}

led() { # TRIGGER [MILLISECONDS]: the green LED; ACT since kernel 5.15, led0 before
    for one in /sys/class/leds/ACT /sys/class/leds/led0; do
        [ -e "$one/trigger" ] || continue
        echo "$1" >"$one/trigger" || true
        [ -z "${2:-}" ] || { echo "$2" >"$one/delay_on"; echo "$2" >"$one/delay_off"; } || true
    done 2>/dev/null
}

: >"$log"
led timer 500
[ -e "$unit" ] ||
    status "edge-fer is being installed. It takes some minutes; the green LED blinks once a second."
code=$({ sh "$here/install.sh" 2>&1 && echo 0 >&3 || echo $? >&3; } 3>&1 >"$log")
cat "$log"
show() { systemctl show --value --property="$1" edge-fer.service; }
runs() { # by the LED too
    if [ "$(show ActiveState)" = active ]; then
        led mmc0
    else
        led timer 100
        journalctl --unit=edge-fer.service --output=cat --lines=5 --no-pager >>"$log" 2>&1 || true
        return 1
    fi
}
if [ "$code" -ne 0 ]; then
    again="It tries again in a minute."
    [ "$code" -ne 65 ] || again="It tries again when it is switched on again."
    why="$(tail -n 1 "$log" | sed 's/^install.sh: //') $again"
    if [ ! -e /opt/edge-fer ] || [ ! -e "$unit" ]; then
        led timer 100
        status "edge-fer is NOT installed: $why The LED blinks fast."
    elif runs; then
        status "The release on this card is NOT installed: $why The one that was installed earlier stays, and runs: $(show StatusText)"
    else
        status "The release on this card is NOT installed: $why The one that was installed earlier stays, and does NOT run. \
What it said last is below. The LED blinks fast."
    fi
    exit "$code"
fi
if runs; then
    status "edge-fer is installed and running: $(show StatusText)"
else
    status "edge-fer is installed and does NOT run. What it said last is below. The LED blinks fast."
fi
