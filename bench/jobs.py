"""The jobs that every library does: a sweep of patches, a causal trace, a collection of activations, and DAS.

A job holds tensors and nothing of any library, so that all start from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

# 15 tokens each for GPT-2, and one in common before they part.
BASE = "The Colosseum, as everyone knows, is in the city of"
SOURCE = "The Eiffel Tower, as everyone knows, is in the city of"
SUBJECT = "Eiffel Tower"
RIGHT, WRONG = " Paris", " Rome"

BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers"}
WITHIN_A_BLOCK = {"block_output": "", "mlp_output": "mlp"}


@dataclass(frozen=True)
class PatchSweep:
    """Patch a component at each (layer, position) from the source run into the base run: the logit difference at the last token.

    `base` and `source` are token ids (1, position).
    """

    base: Tensor
    source: Tensor
    right: int
    wrong: int
    component: str = "block_output"

    @classmethod
    def of(cls, tokenizer, component: str = "block_output") -> PatchSweep:
        base, source = (ids_of(tokenizer, text) for text in (BASE, SOURCE))
        right, wrong = (tokenizer(word)["input_ids"][0] for word in (RIGHT, WRONG))
        return cls(base, source, right, wrong, component)

    def measure(self, logits: Tensor) -> Tensor:
        """From final logits (row, vocab) to (row,)."""
        return logits[:, self.right] - logits[:, self.wrong]


@dataclass(frozen=True)
class CausalTrace:
    """Add noise (sample, subject token, d) to the subject's embeddings, restore a component at each (layer, position), and
    measure the answer's probability, mean over the samples. `ids` are token ids (1, position)."""

    ids: Tensor
    subject: range
    noise: Tensor
    answer: int
    component: str = "block_output"

    @classmethod
    def of(cls, tokenizer, model: PreTrainedModel, component: str = "block_output", samples: int = 10) -> CausalTrace:
        embedding = model.get_input_embeddings().weight.detach()
        before, within = (len(tokenizer(text)["input_ids"]) for text in ("The", f" {SUBJECT}"))
        generator = torch.Generator().manual_seed(0)
        noise = 3 * embedding.std() * torch.randn(samples, within, embedding.shape[1], generator=generator)
        answer = tokenizer(RIGHT)["input_ids"][0]
        return cls(ids_of(tokenizer, SOURCE), range(before, before + within), noise, answer, component)

    @property
    def rows(self) -> Tensor:
        """The prompt, once for each sample."""
        return self.ids.expand(len(self.noise), -1)

    @property
    def noise_everywhere(self) -> Tensor:
        """The noise at every token, (sample, position, d): zero outside the subject."""
        found = torch.zeros(len(self.noise), self.ids.shape[1], self.noise.shape[2])
        found[:, self.subject.start : self.subject.stop] = self.noise
        return found

    def measure(self, logits: Tensor) -> Tensor:
        """From final logits (row, vocab) to (row,)."""
        return logits.softmax(-1)[:, self.answer]


@dataclass(frozen=True)
class Collection:
    """The residual stream after every block, at every token of some prompts, ids (prompt, position)."""

    ids: Tensor
    component: str = "block_output"

    @classmethod
    def of(cls, model: PreTrainedModel, prompts: int = 64, tokens: int = 15) -> Collection:
        generator = torch.Generator().manual_seed(0)
        return cls(torch.randint(model.config.vocab_size - 1, (prompts, tokens), generator=generator))


@dataclass(frozen=True)
class Alignment:
    """Distributed alignment search: turn a subspace until interchanges within it, at one token of a block's output, give the
    pairs' labels. The loss of each step.

    `bases` and `sources` are token ids (pair, position), `labels` ids (pair,), `start` the first basis (d, rank). Adam's rate
    begins at `lr` and falls linearly to zero.
    """

    bases: Tensor
    sources: Tensor
    labels: Tensor
    start: Tensor
    layer: int
    position: int
    epochs: int
    lr: float = 0.01
    batch: int = 16
    component: str = "block_output"

    @classmethod
    def of(cls, model: PreTrainedModel, pairs: int, epochs: int, tokens: int = 12, rank: int = 64) -> Alignment:
        """On random tokens, at the last one after block 6: at another, what random weights make of it hardly reaches the logits."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size - 1, (2 * tokens + 1, pairs), generator=generator).T.contiguous()
        width = model.config.hidden_size
        start = torch.linalg.qr(torch.randn(width, min(rank, width // 2), generator=generator)).Q
        layer = min(6, model.config.num_hidden_layers - 2)
        return cls(ids[:, :tokens], ids[:, tokens:-1], ids[:, -1], start, layer, tokens - 1, epochs)

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """The pairs of each step: all of them once an epoch, in the order in which `train_das` takes them."""
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(len(self.labels), generator=generator) for _ in range(self.epochs)]
        return torch.cat(orders).split(self.batch)


def ids_of(tokenizer, text: str) -> Tensor:
    return torch.tensor([tokenizer(text)["input_ids"]])


def path(model: PreTrainedModel, component: str, layer: int) -> str:
    """The dotted path of the module whose output a component is."""
    return f"{BLOCKS[model.config.model_type]}.{layer}.{WITHIN_A_BLOCK[component]}".rstrip(".")
