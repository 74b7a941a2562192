"""Where oneDNN would take a training with it, it is off."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_fer.model.trial import why_it_dies

_TRIAL = """
import keras, numpy as np
from training import models
model = models.build_separable([[8, 2], [16, 2], [16, 2], [32, 2]], dropout=0.1, classes=15)
model.compile("adam", keras.losses.MeanSquaredError(), jit_compile=False)
images = np.random.default_rng(0).integers(0, 256, (512, 48, 48, 1)).astype(np.float32)
model.fit(images, np.zeros((512, 15), np.float32), batch_size=64, epochs=3, verbose=0)
"""


def guard(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Turn oneDNN off where it dies: TensorFlow 2.21 with it frees memory twice in separable convolutions.

    That was seen on an Intel processor with AMX. Where a processor has AVX-512, which oneDNN has code of its own for, a
    short training in a child process tells; it takes some seconds. Where TensorFlow, which asks once, is loaded
    already, the program begins anew.
    """
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    on_tensorflow = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    if not on_tensorflow or "TF_ENABLE_ONEDNN_OPTS" in os.environ or not ("avx512" in text or "amx" in text):
        return
    if (reason := why_it_dies(_TRIAL, timeout_s=300)) is not None:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
        print(
            f"training: TensorFlow with oneDNN {reason} on this processor, so oneDNN is off. That costs about 1.4 "
            "times the processor time, as measured with a separable network on an AMD EPYC.",
            file=sys.stderr,
            flush=True,
        )
        if "tensorflow" in sys.modules:
            os.execv(sys.executable, sys.orig_argv)
