"""A model's labels mean what its own loss says: value and gradient, or refused on every rank.

Models are the library's own, tiny and from their configurations, in train mode without dropout.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hvdfilter as hf
from tests.distributed.launch import check_ranks

transformers = pytest.importorskip("transformers")
FilteredTrainer = pytest.importorskip("hvdfilter.adapters.transformers").FilteredTrainer
# The library warns of what it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, TOKENS, WORDS, CLASSES = 5, 8, 16, 3
SMALL = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def gpt(kind: Any = None) -> Any:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=TOKENS, n_embd=8, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return (kind or transformers.GPT2LMHeadModel)(config)


class OwnName(transformers.GPT2LMHeadModel):  # type: ignore[misc, name-defined]
    """A subclass, whose name is in no list."""


class Wrapped(nn.Module):
    """A model in another, as adapters of low rank put it: all is handed through."""

    def __init__(self, base_model: Any) -> None:
        super().__init__()
        self.base_model, self.config = base_model, base_model.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)


def bert(name: str, **options: Any) -> Any:
    config = transformers.BertConfig(
        **SMALL, intermediate_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        num_labels=CLASSES, **options,
    )  # fmt: skip
    return getattr(transformers, name)(config)


def mixture() -> Any:
    config = transformers.MixtralConfig(
        **SMALL, intermediate_size=8, num_key_value_heads=2, num_local_experts=4,
        num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=0.3,
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config)


def peft() -> Any:
    library = pytest.importorskip("peft")
    return library.get_peft_model(gpt(), library.LoraConfig(task_type="CAUSAL_LM", r=2))


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=WORDS, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
            dropout_rate=0.0, decoder_start_token_id=0,
        )
    )  # fmt: skip


MODELS = {
    "listed": gpt,
    "subclassed": lambda: gpt(OwnName),
    "wrapped": lambda: Wrapped(gpt()),
    "peft": peft,
    "mixture of experts": mixture,
    "encoder and decoder": t5,
    "masked": lambda: bert("BertForMaskedLM"),
    "classes of tokens": lambda: bert("BertForTokenClassification"),
    "classes": lambda: bert("BertForSequenceClassification"),
}


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(name: str) -> dict[str, torch.Tensor]:
    """Token ids, and labels of which a few are padding, whose number differs between samples."""
    tokens = torch.randint(1, WORDS, (ROWS, TOKENS), generator=numbers(0))
    classes = CLASSES if "classes" in name else WORDS
    shape = (ROWS,) if name == "classes" else (ROWS, TOKENS)
    labels = torch.randint(classes, shape, generator=numbers(1))
    if labels.dim() == 2:
        labels[0, -2:] = labels[3, 0] = -100
    return {"input_ids": tokens, "labels": labels}


def trainer_of(model: Any, folder: Path, kind: Any = FilteredTrainer, **options: Any) -> Any:
    args = transformers.TrainingArguments(folder, report_to=[], use_cpu=True, num_train_epochs=1)
    filt = hf.Filter(ROWS, "full", epochs=1)
    filt.begin_epoch(0)
    return kind(model.train(), args, train_dataset=list(range(ROWS)), filt=filt, **options)


def step(trainer: Any, batch: Any) -> tuple[float, torch.Tensor]:
    """Loss and gradient, by the filter."""
    given = {**batch, "ids": torch.arange(ROWS)}
    return value_and_gradient(trainer.model, trainer.compute_loss(trainer.model, given))


def value_and_gradient(model: Any, loss: torch.Tensor) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return loss.item(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_are_the_models_own(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, batch = MODELS[name](), batch_of(name)
    trainer = trainer_of(model, tmp_path)
    # The first batch, which tells what labels mean, and one that is no longer looked at.
    for _ in range(2):
        loss, gradient = step(trainer, batch)
        wanted, slope = value_and_gradient(model, model(**batch).loss)
        assert loss == pytest.approx(wanted, rel=1e-5)
        torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-4)


TARGETS = torch.rand(ROWS, CLASSES, generator=numbers(2)).round()


class Smoothed(OwnName):
    """Its loss is its own affair."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = super().forward(*args, **kwargs)
        return {**given, "loss": given.loss + 0.01} if "loss" in given else given


class NoLoss(nn.Module):
    """Tokens in, logits out: nothing says what labels mean."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Embedding(WORDS, WORDS)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.net(input_ids)}


def uniform() -> Any:
    model = gpt()
    nn.init.zeros_(model.transformer.wte.weight)  # which is the head's too
    return model


TOLD = r"say FilteredTrainer\(..., shift_labels=True\) or shift_labels=False"
ANOTHER = (
    r"own loss of the first batch is \S+, and the cross entropy .* trains by another loss: "
    r"make the loss in sample_loss\(logits, labels, ids\) of a class derived from FilteredTrainer$"
)
REFUSED = {
    "several labels": (lambda: bert("BertForSequenceClassification"), {"labels": TARGETS}, ANOTHER),
    "said to be several": (
        lambda: bert("BertForSequenceClassification", problem_type="multi_label_classification"),
        {"labels": TARGETS},
        ANOTHER,
    ),
    "its own": (lambda: gpt(Smoothed), {}, ANOTHER),
    "no loss": (NoLoss, {}, "nothing tells whether labels of tokens are to be shifted: " + TOLD),
    "no loss of soft labels": (
        NoLoss,
        {"labels": torch.ones(ROWS, WORDS, TOKENS)},
        "what its soft labels mean is unknown: make the loss in sample_loss",
    ),
    "equal logits": (uniform, {}, f"cannot be told from the model's loss.*: {TOLD}$"),
    "no labels": (gpt, {"labels": None}, "needs a batch's 'labels', one tensor, not NoneType"),
    "no logits": (lambda: transformers.GPT2Model(gpt().config), {}, "do not hold .a fused loss"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_or_is_another_loss_is_refused(name: str, tmp_path: Path) -> None:
    make, labels, sentence = REFUSED[name]
    torch.manual_seed(3)
    trainer = trainer_of(make(), tmp_path)
    with pytest.raises(hf.InputError, match=sentence):
        step(trainer, {**batch_of(""), **labels})


class Several(FilteredTrainer):
    """The remedy that a refusal of several labels names."""

    def sample_loss(self, logits: torch.Tensor, labels: torch.Tensor, ids: Any) -> torch.Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
        return self.filt.update(losses, ids)


class Doubled(FilteredTrainer):
    """A loss of its own."""

    def sample_loss(self, logits: torch.Tensor, labels: torch.Tensor, ids: Any) -> torch.Tensor:
        return 2 * self.filt.loss(logits, labels, ids)


def test_what_an_own_loss_of_tokens_is_handed_is_said(tmp_path: Path) -> None:
    batch, model = batch_of(""), gpt()
    with pytest.raises(hf.InputError, match=f"nothing tells whether labels of tokens.*: {TOLD}"):
        step(trainer_of(model, tmp_path, Doubled), batch)
    loss, _ = step(trainer_of(model, tmp_path, Doubled, shift_labels=True), batch)
    assert loss == pytest.approx(2 * model(**batch).loss.item(), rel=1e-5)
    one = bert("BertForSequenceClassification")
    with pytest.raises(hf.InputError, match="shift_labels=True is for tokens.*: leave it out"):
        step(trainer_of(one, tmp_path, Doubled, shift_labels=True), batch_of("classes"))


def test_the_remedies_do(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = bert("BertForSequenceClassification", problem_type="multi_label_classification")
    batch = {**batch_of(""), "labels": TARGETS}
    loss, gradient = step(trainer_of(model, tmp_path, Several), batch)
    wanted, slope = value_and_gradient(model, model(**batch).loss)
    assert loss == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-4)
    batch = batch_of("")
    for shift in (False, True):
        plain = NoLoss()
        loss, _ = step(trainer_of(plain, tmp_path, shift_labels=shift), batch)
        logits, labels = plain(batch["input_ids"])["logits"], batch["labels"]
        if shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
        wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
        assert loss == pytest.approx(wanted, rel=1e-5)
    # What is said and not so is refused: this model shifts.
    with pytest.raises(hf.InputError, match="trains by another loss"):
        step(trainer_of(gpt(), tmp_path, shift_labels=False), batch)


RANKS = """
import torch
from torch.nn import functional as F
import hvdfilter as hf
from hvdfilter.adapters.own_loss import Meaning

world = hf.init()
g = torch.Generator().manual_seed(world.rank)
logits, labels = torch.randn(2, 4, 7, generator=g), torch.randint(7, (2, 4), generator=g)
shifted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

def learn(logits, own):
    meaning = Meaning(world.collective, None, False)
    try:
        meaning.learn({"logits": logits, "loss": own}, labels, None)
        return meaning.shift
    except hf.InputError as error:
        return f"{error}"

# Rank 0's logits are all alike and tell nothing; what rank 1's tell holds for both.
alike = logits * world.rank
first = learn(alike, shifted if world.rank else torch.tensor(7.0).log())
# Rank 1's own loss is another one: both refuse.
second = learn(logits, shifted + world.rank)
print(f"<{world.rank}|{first}|{second}>", flush=True)
"""


@pytest.mark.distributed
def test_the_ranks_decide_together() -> None:
    found = sorted(re.findall(r"<(\d)\|(.*)\|(.*)>", check_ranks(RANKS, 2, timeout=40)))
    assert [rank for rank, _, _ in found] == ["0", "1"]
    assert [shift for _, shift, _ in found] == ["True", "True"]
    assert all("rank 1: the model's own loss" in told for _, _, told in found)
