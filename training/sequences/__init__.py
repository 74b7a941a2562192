"""Expressions over time: what a sequence of faces shows, from what its frames show."""

OFFLINE_METHODS = (
    "cross-entropy",
    "ppdn",
    "ppdn-unsuppressed",
    "dcpn",
    "mscnn",
    "mscnn-identity",
    "c3d",
    "phrnn",
    "phrnn+mscnn",
)
"""What ``trial`` trains; here, since that module loads Keras, which the command line's help does not want."""
