"""What Home Assistant is told of this device: one message, from which it makes all its entities.

The form is MQTT device discovery (https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from edge_fer.control import State
from edge_fer.version import __version__

_NO_ID = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST = 64


def device_id(device: str) -> str:
    """The name of a device in the letters that Home Assistant takes for an id and any broker for a topic.

    Where that leaves out a letter of another script, or the end, a hash of the name keeps two devices apart.
    """
    name = _NO_ID.sub("-", device).strip("-")
    if name and device.isascii() and len(name) <= _LONGEST:
        return name
    mark = sha256(device.encode(errors="replace")).hexdigest()[:8]
    return f"{name[: _LONGEST - 9] or 'device'}-{mark}"


def discovery_topic(prefix: str, device: str) -> str:
    """Where the message belongs, retained."""
    return f"{prefix}/device/edge-fer-{device_id(device)}/config"


def discovery(device: str, base: str, expressions: Sequence[str], model: str, *, has_sensors: bool) -> dict[str, Any]:
    """The message.

    Args:
        device: its name.
        base: topic below which ``available``, ``state``, ``enabled/set`` and ``enabled/state`` are.
        expressions: that can be recognized.
        model: name of the model in use.
        has_sensors: the board tells its temperature and whether it is throttled.
    """
    name = f"edge-fer-{device_id(device)}"

    def entity(platform: str, key: str, title: str, template: str, **rest: Any) -> dict[str, dict[str, Any]]:
        return {key: {"p": platform, "unique_id": f"{name}-{key}", "name": title, "value_template": template, **rest}}

    def number(key: str, title: str, unit: str, icon: str, decimals: int, **rest: Any) -> dict[str, dict[str, Any]]:
        return entity(
            "sensor",
            key,
            title,
            f"{{{{ value_json.{key} }}}}",
            unit_of_measurement=unit,
            state_class="measurement",
            suggested_display_precision=decimals,
            **({"icon": icon} if icon else {}),
            **rest,
        )

    diagnostic = {"entity_category": "diagnostic"}
    components = {
        # An enumeration has options, and neither a unit nor a state class.
        **entity(
            "sensor",
            "expression",
            "Expression",
            "{{ value_json.expression }}",
            device_class="enum",
            options=list(expressions),
            icon="mdi:emoticon-outline",
        ),
        **entity(
            "sensor",
            "confidence",
            "Confidence",
            "{{ (value_json.confidence * 100) | round(1) if value_json.confidence is not none else none }}",
            unit_of_measurement="%",
            state_class="measurement",
            suggested_display_precision=0,
            icon="mdi:percent-outline",
        ),
        **entity(
            "binary_sensor",
            "face",
            "Face",
            "{{ 'ON' if value_json.faces > 0 else 'OFF' }}",
            device_class="occupancy",
        ),
        **number("faces", "Faces", "faces", "mdi:face-recognition", 0),
        **number("fps", "Frame rate", "fps", "mdi:speedometer", 1, **diagnostic),
        **number("inference_ms", "Time for a frame", "ms", "", 1, device_class="duration", **diagnostic),
        **entity(
            "sensor",
            "status",
            "Status",
            "{{ value_json.state }}",
            device_class="enum",
            options=[state.value for state in State],
            icon="mdi:state-machine",
            json_attributes_topic=f"{base}/state",
            json_attributes_template="{{ {'reason': value_json.reason, 'effort': value_json.effort} | tojson }}",
            **diagnostic,
        ),
        "enabled": {
            "p": "switch",
            "unique_id": f"{name}-enabled",
            "name": "Camera",
            "icon": "mdi:camera",
            "state_topic": f"{base}/enabled/state",
            "command_topic": f"{base}/enabled/set",
            # "ON" until the camera is truly closed.
            "optimistic": False,
        },
    }
    if has_sensors:
        components |= number(
            "temperature_c", "Processor temperature", "°C", "", 1, device_class="temperature", **diagnostic
        )
        components |= entity(
            "binary_sensor",
            "throttled",
            "Throttled",
            "{{ 'ON' if value_json.throttled else 'OFF' }}",
            device_class="problem",
            **diagnostic,
        )
    for component in components.values():
        component.setdefault("state_topic", f"{base}/state")
    return {
        "dev": {"ids": [name], "name": device, "mf": "edge-fer", "mdl": f"model {model}", "sw": __version__},
        "o": {"name": "edge-fer", "sw": __version__},
        "availability": [{"topic": f"{base}/available"}],
        "qos": 1,
        "cmps": components,
    }
