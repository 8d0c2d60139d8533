r"""Several classifiers for the same blocks: the layers that they share are computed once.

    block -> stem -> layer1 -> ... as far as the backbones are equal -> each stage's own layers

Stages 2 and 3 mostly start from Stage 1's backbone, and keep it if it is frozen or has adapters:
then the stem and layer 1, a third of the work, are equal for all, and more layers for a frozen one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from av1part.models.backbone import LEVELS, layer_of
from av1part.models.classifier import Classifier
from av1part.models.freeze import state_sha256


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

    def blocks(self, block: Tensor) -> SharedBlocks:
        """Return blocks, (b, 1, s, s), whose features are computed when logits are asked for."""
        return SharedBlocks(self, block)

    def shared(self, member: int) -> Sequence[str]:
        """Return the identities of a classifier's features at cut 0, 1, ... that it shares."""
        return self._shared[member]


class SharedBlocks:
    """Blocks, and the shared features that have been computed for them so far."""

    def __init__(
        self, trunk: SharedTrunk, block: Tensor, kept: dict[str, Tensor] | None = None
    ) -> None:
        self.trunk = trunk
        self.block = block
        self._kept = {} if kept is None else kept

    def select(self, index: Tensor) -> SharedBlocks:
        """Return some of the blocks with their features: int64 (n,) or bool (b,)."""
        kept = {key: features[index] for key, features in self._kept.items()}
        return SharedBlocks(self.trunk, self.block[index], kept)

    def logits(self, member: int, qindex: Tensor) -> Tensor:
        """Compute the logits of a classifier.

        Args:
            member: Index of the classifier.
            qindex: int64, shape (b,).

        Returns:
            Logits, shape (b, k).
        """
        classifier, shared = self.trunk.classifiers[member], self.trunk.shared(member)
        if not shared:
            logits: Tensor = classifier(self.block, qindex)
            return logits
        at = len(shared) - 1
        start = next((cut for cut in range(at, -1, -1) if shared[cut] in self._kept), 0)
        kept = self._kept.get(shared[start])
        x = self._keep(shared[0], classifier.trunk(self.block, 0)) if kept is None else kept
        for level in LEVELS[start:at]:
            x = self._keep(shared[level], classifier.backbone.level(level, x))
        return classifier.from_cut(x, qindex, at)

    def _keep(self, key: str, features: Tensor) -> Tensor:
        if key in self.trunk.kept:
            self._kept[key] = features
        return features


def _chain(classifier: Classifier) -> list[str]:
    """Return an identity of the features at each cut from 0 on, up to the first adapter."""
    state = classifier.backbone.state_dict()
    facts = f"{float(classifier.normalise.peak)} {type(classifier.backbone.maxpool).__name__}"
    chain = []
    for cut in range(len(LEVELS) + 1):
        layer = f"layer{cut}" if cut else "stem"
        if any(site.startswith(f"{layer}_") for site in classifier.adapters):
            break
        facts += state_sha256({n: t for n, t in state.items() if layer_of(n) == layer})
        chain.append(facts)
        if layer in classifier.adapters:  # which comes after the features of this cut
            break
    return chain
