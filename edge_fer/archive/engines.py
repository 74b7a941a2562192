"""What runs the tasks: cores of this machine, or an engine that is there already, through joblib's back ends."""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias, get_args

from edge_fer.archive.task import Outcome
from edge_fer.errors import EdgeFerError, UnavailableError, UsageError, printable

Engine: TypeAlias = Literal["loky", "dask", "ray", "spark"]

AT_ONCE = 8
"""Where an engine gives no result before all are there, it is handed so many tasks for each of its cores at a time."""
MOST_FRUITLESS = 4
"""So many deaths of workers in a row, with no video done between them, are taken for the machine's fault."""

Call: TypeAlias = "tuple[Callable[..., Outcome], tuple[Any, ...], dict[str, Any]]"
"""What ``joblib.delayed(process)(...)`` makes."""


def parse_engine(text: str) -> tuple[Engine, str]:
    """Read "dask:tcp://10.0.0.5:8786": an engine, and where it is; "" for one that is started here.

    Raises:
        UsageError: it is no such text.
    """
    name, _, address = text.partition(":")
    if name not in get_args(Engine) or (name == "loky" and address):
        raise UsageError(
            f"--backend is loky, dask, ray or spark, the last three with an address if you like: dask:tcp://HOST:8786, "
            f"ray:auto, spark:yarn; not {text!r}."
        )
    return name, address  # type: ignore[return-value]


def outcomes(
    engine: Engine, address: str, jobs: int, calls: Sequence[Call], on_death: Callable[[], Sequence[Call]]
) -> Iterator[Outcome]:
    """Run tasks; what comes of each, in the order in which they end.

    Args:
        engine: that runs them.
        address: of it; "" starts one on this machine.
        jobs: at the same time; -1 for as many as the engine has cores.
        calls: the tasks.
        on_death: called when a worker has died; gives the tasks that are left.

    Raises:
        UnavailableError: the engine is not installed, or does not answer.
        EdgeFerError: workers die again and again.
    """
    if not calls:
        return
    if engine == "loky":
        yield from _by_processes(jobs, calls, on_death)
        return
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines warn of what their users chose
        try:
            match engine:
                case "dask":
                    _start_dask(address, jobs, stack)
                case "ray":
                    _start_ray(address, jobs, stack)
                case "spark":
                    _start_spark(address, jobs, stack)
            yield from _on_engine(engine, jobs, calls)
        except (EdgeFerError, ImportError, GeneratorExit):
            raise
        except Exception as error:
            # An engine hands on what its worker met in the middle of a page of its own.
            lines = re.findall(r"(?m)^\s*((?:\w+\.)*\w*Error\b.*)", str(error)) or [str(error).strip() or repr(error)]
            reason = printable(" ".join(lines[-1].split())[:300])
            raise UnavailableError(
                f"{engine} has failed: {reason}. What is done stays done; the same command goes on."
            ) from error


def _by_processes(jobs: int, calls: Sequence[Call], on_death: Callable[[], Sequence[Call]]) -> Iterator[Outcome]:
    """The processes of joblib's loky. A worker that dies takes its like with it; those that are left begin anew."""
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    fruitless = 0
    while calls:
        try:
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                parallel = joblib.Parallel(jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
                for outcome in parallel(calls):
                    fruitless = 0
                    yield outcome
            return
        except BrokenProcessPool:
            fruitless += 1
            if fruitless == MOST_FRUITLESS:
                raise EdgeFerError(
                    "The workers die again and again: killed, or short of memory. Try fewer with --jobs. What is done "
                    "stays done; the same command goes on."
                ) from None
            calls = on_death()
        finally:
            if jobs != 1:
                # joblib keeps them for a next call; a process that ends by `os._exit` would leave them behind.
                get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _on_engine(engine: Engine, jobs: int, calls: Sequence[Call]) -> Iterator[Outcome]:
    import joblib

    with joblib.parallel_config(engine, n_jobs=jobs):
        if engine == "dask":
            yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
            return
        at_once = AT_ONCE * joblib.effective_n_jobs(jobs)
        left = iter(calls)
        while part := list(itertools.islice(left, at_once)):
            yield from joblib.Parallel(batch_size=1)(part)


def _start_dask(address: str, jobs: int, stack: ExitStack) -> None:
    import distributed
    import joblib

    for name in ("distributed", "distributed.worker", "distributed.nanny"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong comes back as an exception
    if address:
        client = distributed.Client(address, timeout="10s")
    else:
        workers = joblib.cpu_count() if jobs < 0 else jobs
        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        )
        client = distributed.Client(cluster)
    stack.enter_context(client)


def _start_ray(address: str, jobs: int, stack: ExitStack) -> None:
    import ray
    from ray.util.joblib import register_ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(address="local", num_cpus=None if jobs < 0 else jobs, include_dashboard=False, **quiet)
    stack.callback(ray.shutdown)
    logging.getLogger("ray").setLevel(logging.ERROR)
    register_ray()


def _start_spark(address: str, jobs: int, stack: ExitStack) -> None:
    from joblibspark import register_spark
    from pyspark.sql import SparkSession

    if not address:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else it takes the first python3 that it finds
    master = address or ("local[*]" if jobs < 0 else f"local[{jobs}]")
    builder = SparkSession.builder.master(master).appName("edge-fer archive")
    session = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
    stack.callback(session.stop)
    session.sparkContext.setLogLevel("ERROR")
    register_spark()
