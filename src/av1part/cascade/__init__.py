"""The cascade on arrays: route nodes through the stages, and say what each stage costs."""

from av1part.cascade.analysis import CascadeResult, analyse
from av1part.cascade.routing import (
    Choices,
    Nodes,
    Routing,
    fit_choices,
    flat_distribution,
    member_probabilities,
    route,
    type_index,
    vote,
)

__all__ = [
    "CascadeResult",
    "Choices",
    "Nodes",
    "Routing",
    "analyse",
    "fit_choices",
    "flat_distribution",
    "member_probabilities",
    "route",
    "type_index",
    "vote",
]
