"""STUB."""

from __future__ import annotations

from shrinkbench.network.dataflow import Flow


def projections(flow: Flow) -> frozenset[str]:
    """STUB."""
    raise NotImplementedError
