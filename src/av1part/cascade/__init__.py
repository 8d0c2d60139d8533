"""The cascade on arrays: route nodes through the stages, and say what each stage costs."""

from av1part.cascade.analysis import CascadeResult, analyse
from av1part.cascade.choices import Choices, cross_fit_choices, fit_choices, stage_temperature
from av1part.cascade.ensembles import disagreement, join
from av1part.cascade.routing import (
    Nodes,
    Routing,
    flat_distribution,
    member_probabilities,
    route,
    type_index,
)

__all__ = [
    "CascadeResult",
    "Choices",
    "Nodes",
    "Routing",
    "analyse",
    "cross_fit_choices",
    "disagreement",
    "fit_choices",
    "flat_distribution",
    "join",
    "member_probabilities",
    "route",
    "stage_temperature",
    "type_index",
]
