r"""The stages of a cascade side by side: what they have in common is computed once.

    block -> stem -> layer1 -> ... as far as the backbones are the same -> each stage's own rest

Stage 2 and 3 mostly start from Stage 1's backbone, and frozen or with adapters they keep it: then
stem and layer 1, a third of the work, are the same for all, and more than that for a frozen one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from av1part.models.backbone import LEVELS, layer_of
from av1part.models.classifier import Classifier
from av1part.models.freeze import state_sha256
from av1part.models.precision import computing_in
from av1part.partition import IGNORED
from av1part.stages.base import StageModule


class SharedTrunk:
    """Classifiers that are asked about the same blocks, in eval mode on one device."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        """Find out what they have in common.

        Args:
            classifiers: Which must not change while this is used.
        """
        self.classifiers = classifiers
        chains = [_chain(classifier) for classifier in classifiers]
        users = Counter(key for chain in chains for key in chain)
        # Of each, the identities of its first cuts, as far as another one has them too; what is
        # worth keeping is where one of them leaves the others.
        self._shared = [[key for key in chain if users[key] > 1] for chain in chains]
        self.kept = {chain[-1] for chain in self._shared if chain}

    def blocks(self, block: Tensor) -> SharedBlocks:
        """Return blocks, (b, 1, s, s), about which to ask; they are computed when asked."""
        return SharedBlocks(self, block)

    def shared(self, member: int) -> Sequence[str]:
        """Return the identities of a classifier's features at cut 0, 1, ... that others have."""
        return self._shared[member]


class SharedBlocks:
    """Some blocks, and what has been computed of them so far."""

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
        """Ask a classifier.

        Args:
            member: Its index.
            qindex: int64, shape (b,).

        Returns:
            Logits, shape (b, k).
        """
        classifier, shared = self.trunk.classifiers[member], self.trunk.shared(member)
        if not shared:
            answer: Tensor = classifier(self.block, qindex)
            return answer
        at = len(shared) - 1
        start = next((cut for cut in range(at, -1, -1) if shared[cut] in self._kept), 0)
        found = self._kept.get(shared[start])
        x = self._keep(shared[0], classifier.trunk(self.block, 0)) if found is None else found
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


class CascadePredictor:
    """A cascade that says how a block is cut, each stage asked only about what reaches it.

    Where `pipeline` asks every stage about every node, to analyse what each costs, this is what an
    encoder would run: Stage 1 on all blocks, Stage 2 on those to be cut, Stage 3 by route.
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[StageModule]],
        *,
        threshold: float = 0.5,
        precision: str = "32-true",
        batch_size: int = 2048,
    ) -> None:
        """Take the stages.

        Args:
            members: Stage name to its ensemble, as `pipeline.load_members` returns it, on one
                device. Several answer by the mean of their probabilities.
            threshold: Of Stage 1's second class, a probability.
            precision: To compute in, a key of `AUTOCASTS`.
            batch_size: Blocks at a time.
        """
        self.members = members
        # Frozen, so that their layers are folded once and not in each call.
        self.modules = [m.eval().requires_grad_(False) for each in members.values() for m in each]
        self.taxonomy = self.modules[0].taxonomy
        self.device = self.modules[0].device
        self.threshold = threshold
        self.precision = precision
        self.batch_size = batch_size
        self.trunk = SharedTrunk([module.classifier for module in self.modules])
        self._index = {id(module): i for i, module in enumerate(self.modules)}

    def __call__(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Predict partition types.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: int64 0..255, shape (n,).

        Returns:
            AV1 ids, int64, shape (n,), on the CPU.
        """
        prediction = torch.empty(len(block), dtype=torch.int64)
        with torch.inference_mode(), computing_in(self.precision, self.device):
            for start in range(0, len(block), self.batch_size):
                here = slice(start, start + self.batch_size)
                part = (block[here].to(self.device), qindex[here].to(self.device))
                prediction[here] = self._predict(*part).cpu()
        return prediction

    def _predict(self, block: Tensor, qindex: Tensor) -> Tensor:
        prediction = torch.full((len(block),), IGNORED, device=self.device)
        every = torch.arange(len(block), device=self.device)
        waiting = [(self.taxonomy.root, self.trunk.blocks(block), every)]
        while waiting:
            stage, blocks, at = waiting.pop()
            answer = self._decide(stage.name, blocks, qindex[at])
            for index, name in enumerate(stage.class_names):
                here = (answer == index).nonzero()[:, 0]
                child = self.taxonomy.child(stage, name)
                if child is None:
                    prediction[at[here]] = int(stage.partitions[index])
                elif len(here):
                    waiting.append((child, blocks.select(here), at[here]))
        return prediction

    def _decide(self, stage: str, blocks: SharedBlocks, qindex: Tensor) -> Tensor:
        probabilities = torch.stack(list(self._ask(stage, blocks, qindex))).mean(0)
        if stage == self.taxonomy.root.name:
            return (probabilities[:, 1] > self.threshold).long()
        return probabilities.argmax(1)

    def _ask(self, stage: str, blocks: SharedBlocks, qindex: Tensor) -> Iterator[Tensor]:
        for module in self.members[stage]:
            yield blocks.logits(self._index[id(module)], qindex).float().softmax(1)
