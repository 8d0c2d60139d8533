"""The schema as Hydra sees it: choices of groups, keys of verbs, resolvers."""

from __future__ import annotations

from dataclasses import asdict

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from av1part.config.schema import GROUPS, VERB_KEYS
from av1part.system.files import slug

_RATES = {"scratch": 1e-3, "frozen": None, "adapter": None, "meta": None}
_TRAINED_ON = 1e-4


def backbone_rate(method: str) -> float | None:
    """Return the learning rate of a method's backbone; None where it is frozen.

    >>> backbone_rate("scratch"), backbone_rate("finetune"), backbone_rate("frozen")
    (0.001, 0.0001, None)
    """
    return _RATES.get(method, _TRAINED_ON)


def conditioning_of(kind: str) -> str:
    """Return the conditioning that a backbone has by default.

    >>> conditioning_of("resnet18"), conditioning_of("superblock")
    ('none', 'qindex_blocks')
    """
    return "qindex_blocks" if kind == "superblock" else "none"


def register() -> None:
    """Register resolvers and the schema with Hydra; safe to call again.

    Values are stored without their types: `config.check` refuses a wrong one in one line.
    """
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("backbone_rate", backbone_rate, replace=True)
    OmegaConf.register_new_resolver("conditioning_of", conditioning_of, replace=True)
    store = ConfigStore.instance()
    for group, spec in GROUPS.items():
        for name, choice in spec.choices.items():
            store.store(group=group, name=name, node=asdict(choice))
    for verb, keys in VERB_KEYS.items():
        store.store(group="keys", name=verb, node=asdict(keys), package="_global_")
