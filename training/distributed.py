"""Training by several processes, on one machine or on many: data parallel on all devices, by ``jax.distributed``.

The program of an epoch (``jax_fit``) is compiled once for all devices. Each process holds all samples and all weights;
a batch is cut into a part for each device, and XLA adds up what the parts have in common, statistics of batch
normalization included: the loss is that of one process. ``keras.distribution`` does the same for ``Model.fit`` alone,
and makes every variable a global array, with which saving and predicting are for all processes at once (docs/adr/0025).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import ConfigError, UnavailableError

ADDRESS, COUNT, NUMBER = (f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))
"""The variables of ``keras.distribution.initialize``: HOST:PORT of the first process, how many, which this is."""


@dataclass(frozen=True)
class Processes:
    """Who takes part.

    Attributes:
        number: of this process, from 0.
        count: of all.
    """

    number: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes what all have made."""
        return self.number == 0


ALONE = Processes()


def started(environ: Mapping[str, str] = os.environ) -> int:
    """So many processes were started together: by the variables above, or as the tasks of a step of Slurm.

    Raises:
        ConfigError: a variable is wrong, or one is missing.
    """
    if given := [name for name in (ADDRESS, COUNT, NUMBER) if name in environ]:
        if len(given) < 3:
            missing = next(name for name in (ADDRESS, COUNT, NUMBER) if name not in environ)
            raise ConfigError(f"{given[0]} is set and {missing} is not: the three say together who takes part.")
        number, count = environ[NUMBER], environ[COUNT]
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise ConfigError(f"{NUMBER} must be from 0 to {COUNT} - 1; they are {number!r} and {count!r}.")
        return int(count)
    # Only srun sets the first: a batch script, or a shell in an allocation, is alone whatever the allocation holds.
    if "SLURM_STEP_ID" in environ and environ.get("SLURM_STEP_NUM_TASKS", "").isdecimal():
        return int(environ["SLURM_STEP_NUM_TASKS"])
    return 1


def join(distribution: str, environ: Mapping[str, str] = os.environ) -> Processes:
    """Take part in the training of all processes that were started together. Comes before all else that JAX does.

    Args:
        distribution: of the recipe.
        environ: see ``started``.

    Raises:
        ConfigError: several processes and a recipe for one, or Keras is not on JAX.
        UnavailableError: the first process does not answer.
    """
    count = started(environ)
    if distribution == "none":
        if count > 1:
            raise ConfigError(
                f"{count} processes were started, and the recipe is for one: --set distribution=data, or start one."
            )
        return ALONE
    if keras.backend.backend() != "jax":
        raise ConfigError('distribution = "data" needs Keras on JAX: set KERAS_BACKEND=jax, in an environment with it.')
    if count == 1:
        return ALONE
    import jax

    if not jax.distributed.is_initialized():
        address = environ.get(ADDRESS, "").partition(",")[0]
        number = int(environ[NUMBER]) if address else None  # of Slurm JAX asks all that itself
        try:
            jax.distributed.initialize(address or None, count if address else None, number, initialization_timeout=120)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UnavailableError(
                f"The {count} processes do not find each other: {reason}. See docs/scale.md."
            ) from None
    return Processes(jax.process_index(), jax.process_count())


@contextmanager
def leader_first(processes: Processes) -> Iterator[None]:
    """What the first process does with files here is done before the others come to it."""
    if not processes.leads:
        wait_for_all(processes)
    yield
    if processes.leads:
        wait_for_all(processes)


def wait_for_all(processes: Processes) -> None:
    """Come back when all processes have come here: none may leave while another still wants it."""
    if processes.count > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("edge-fer")


def predict(
    act: Callable[[NDArray[np.uint8]], NDArray[np.float32]], images: NDArray[np.uint8], processes: Processes
) -> NDArray[np.float32]:
    """The logits of all images, of which each process predicts its part; all have them in the end.

    Args:
        act: predicts some images, (k, height, width, 1) -> (k, classes).
        images: (n, height, width, 1), the same in all processes.
        processes: who takes part.

    Returns:
        (n, classes).
    """
    if processes.count == 1:
        return act(images)
    from jax.experimental import multihost_utils

    size = -(-len(images) // processes.count)
    begin = processes.number * size
    # All parts are alike long: what the last one lacks it takes from the beginning.
    part = act(np.take(images, np.arange(begin, begin + size), axis=0, mode="wrap"))
    gathered: Any = multihost_utils.process_allgather(part, tiled=True)
    return np.asarray(gathered)[: len(images)]
