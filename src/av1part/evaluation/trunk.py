r"""Several classifiers for the same blocks: the layers that they share are computed once.

    block -> stem -> layer1 -> ... as far as the backbones are equal -> each stage's own layers

Stages 2 and 3 mostly start from Stage 1's backbone, and keep it if it is frozen or has adapters:
then the stem and layer 1, a third of the work, are equal for all, and more layers for a frozen one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from av1part.models.classifier import Classifier
from av1part.models.freeze import state_sha256
from av1part.models.layers import LEVELS


class SharedTrunk:
    """Classifiers for the same blocks, in eval mode on one device."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        """Compare the classifiers layer by layer.

        Args:
            classifiers: They must not change while the trunk is used.
        """
        self.classifiers = classifiers
        chains = [_chain(classifier) for classifier in classifiers]
        users = Counter(key for chain in chains for key in chain)
        # For each classifier the identities of its first cuts that another one has too. Features
        # are kept where a classifier leaves the others.
        self._shared = [[key for key in chain if users[key] > 1] for chain in chains]
        self.kept = {chain[-1] for chain in self._shared if chain}

    def blocks(self, block: Tensor, qindex: Tensor) -> SharedBlocks:
        """Return blocks, (b, 1, s, s), at a qindex each, (b,), for logits on demand."""
        return SharedBlocks(self, block, qindex)

    def shared(self, member: int) -> Sequence[str]:
        """Return the identities of a classifier's features at cut 0, 1, ... that it shares."""
        return self._shared[member]


class SharedBlocks:
    """Blocks, and the shared features that have been computed for them so far."""

    def __init__(
        self,
        trunk: SharedTrunk,
        block: Tensor,
        qindex: Tensor,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        self.trunk = trunk
        self.block, self.qindex = block, qindex
        self._kept = {} if kept is None else kept

    def select(self, index: Tensor) -> SharedBlocks:
        """Return some of the blocks with their features: int64 (n,) or bool (b,)."""
        kept = {key: features[index] for key, features in self._kept.items()}
        return SharedBlocks(self.trunk, self.block[index], self.qindex[index], kept)

    def logits(self, member: int) -> Tensor:
        """Return the logits, (b, k), of the classifier of an index."""
        classifier, shared = self.trunk.classifiers[member], self.trunk.shared(member)
        if not shared:
            logits: Tensor = classifier(self.block, self.qindex)
            return logits
        at = len(shared) - 1
        start = next((cut for cut in range(at, -1, -1) if shared[cut] in self._kept), 0)
        kept = self._kept.get(shared[start])
        x = kept
        if x is None:
            x = self._keep(shared[0], classifier.trunk(self.block, self.qindex, 0))
        for level in LEVELS[start:at]:
            x = self._keep(shared[level], classifier.next_cut(x, self.qindex, level))
        return classifier.from_cut(x, self.qindex, at)

    def _keep(self, key: str, features: Tensor) -> Tensor:
        if key in self.trunk.kept:
            self._kept[key] = features
        return features


def _chain(classifier: Classifier) -> list[str]:
    """Return an identity of the features at each cut from 0 on, up to the first adapter."""
    backbone = classifier.backbone
    state = backbone.state_dict()
    facts = json.dumps(classifier.input_facts, sort_keys=True)
    chain = []
    for cut in range(len(LEVELS) + 1):
        layer = f"layer{cut}" if cut else "stem"
        if any(site.startswith(f"{layer}_") for site in classifier.adapters):
            break
        facts += state_sha256({n: t for n, t in state.items() if backbone.layer_of(n) == layer})
        chain.append(facts)
        if layer in classifier.adapters:  # which comes after the features of this cut
            break
    return chain
