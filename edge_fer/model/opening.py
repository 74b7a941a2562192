"""A bundle's graph in the runtime: where it is not one of the package's, it is first run in a child process."""

from __future__ import annotations

from edge_fer.errors import BundleError, UnavailableError
from edge_fer.model.bundle import Bundle
from edge_fer.model.litert import Network, why_it_kills


def open_network(bundle: Bundle, threads: int = 1, *, edgetpu: bool = False) -> Network:
    """Load the graph of a bundle. What its inputs and outputs must be, and the self-test, are the caller's to check.

    Args:
        bundle: from whomever.
        threads: CPU threads.
        edgetpu: hand it to a Coral; see ``litert.probe_edgetpu``, which comes first.

    Raises:
        BundleError: the model cannot be loaded, or kills a process.
        UnavailableError: no runtime is installed, or the model needs an Edge TPU and there is none.
    """
    if not bundle.is_packaged:
        reason = why_it_kills(bundle.model, bundle.selftest.inputs, edgetpu=edgetpu)
        if reason is not None:
            raise BundleError(f"{bundle} cannot be used: in a process of its own it {reason}. Export it again.")
    try:
        return Network(bundle.model, threads, edgetpu=edgetpu)
    except BundleError as error:
        if b"edgetpu-custom-op" in bundle.model and not edgetpu:
            raise UnavailableError(
                f"{bundle} is compiled for the Edge TPU, and there is none. Use the CPU file of this model."
            ) from None
        raise BundleError(f"{bundle}: {error}") from None
