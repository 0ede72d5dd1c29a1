import sys
import types

import pytest
import torch
from torch import nn

from hvdfilter import models
from hvdfilter.errors import InputError


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size", "weights"),
    # Sizes: the smallest that the network takes, or an odd one.
    [
        # kuangliu/pytorch-cifar and torchvision publish these two.
        ("resnet18", 3, 10, 9, 11_173_962),
        ("resnet50", 3, 1000, 33, 25_557_032),
        # Page's network: eight 3x3 convolutions with BatchNorm, a linear layer without bias.
        (
            "resnet9",
            3,
            10,
            8,
            9 * (3 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256 * 512 + 2 * 512**2)
            + 2 * (64 + 3 * 128 + 256 + 3 * 512)
            + 512 * 10,
        ),
        ("cnn", 1, 10, 4, 10 * 32 + 289 * 32 + 289 * 64 + 577 * 64 + 257 * 10),
        ("cnn:16", 1, 10, 4, 10 * 16 + 145 * 16 + 145 * 32 + 289 * 32 + 129 * 10),
        ("cnn", 3, 10, 29, 28 * 32 + 289 * 32 + 289 * 64 + 577 * 64 + 257 * 10),
    ],
)
def test_weights_logits_and_gradients(name, channels, classes, size, weights):
    torch.manual_seed(0)
    model = models.make(name, channels, classes, size)
    assert sum(p.numel() for p in model.parameters()) == weights
    x = torch.randn(3, channels, size, size, requires_grad=True)
    logits = model(x)
    assert logits.shape == (3, classes)
    nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    # Every weight is reached, but for those behind a residual branch that starts at zero.
    silent = [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert all(".body." in n for n in silent)
    assert bool(silent) == (name in ("resnet18", "resnet50"))


def test_residual_branches_start_at_zero():
    torch.manual_seed(0)
    model = models.make("resnet18", 3, 10, 8).eval()
    x = torch.randn(2, 3, 8, 8)
    stem = model.stem(x)
    # relu of the stem's output, which relu has already been applied to
    assert torch.equal(model.stages[0](stem), stem)


def test_samples_do_not_mix_in_cnn():
    # What the policies rely on: a sample's logits do not depend on its batch.
    torch.manual_seed(0)
    model = models.make("cnn", 1, 10, 8).train()
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(model(x)[2:4], model(x[2:4]))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet-18", 32, "unknown model 'resnet-18'; did you mean resnet18?"),
        ("zzz", 32, "choose from cnn, resnet9, resnet18, resnet50, timm:NAME"),
        ("resnet50", 16, "model resnet50 needs images of at least 32 pixels a side, not 16"),
    ],
)
def test_bad_requests(name, size, message):
    with pytest.raises(InputError) as caught:
        models.make(name, 3, 10, size)
    assert message in str(caught.value)


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="model timm:vit needs timm.*pip install timm"):
        models.make("timm:vit", 3, 10, 32)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import torchvision_nonesuch.ops", "needs torchvision_nonesuch, which is not installed"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
    ],
)
def test_what_timm_lacks_is_named(tmp_path, monkeypatch, source, said):
    (tmp_path / "timm.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(InputError, match=said):
        models.make("timm:vit", 3, 10, 32)


def test_timm_is_asked_for_an_untrained_model(monkeypatch):
    # A stand-in for timm, which is seldom installed: what it is called with is what matters.
    calls = []

    def create_model(name, **options):
        calls.append((name, options))
        if "img_size" in options:
            raise TypeError("unexpected keyword argument 'img_size'")
        return nn.Identity()

    fake = types.SimpleNamespace(
        is_model=lambda name: name == "resnet10t",
        list_models=lambda: ["resnet10t"],
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    models.make("timm:resnet10t", 1, 5, 28)
    assert calls[-1] == ("resnet10t", {"pretrained": False, "in_chans": 1, "num_classes": 5})
    assert calls[0][1]["img_size"] == 28
    with pytest.raises(InputError, match="no model 'resnet10'; did you mean timm:resnet10t"):
        models.make("timm:resnet10", 1, 5, 28)


def test_available():
    assert models.available() == ["cnn", "resnet9", "resnet18", "resnet50", "timm:NAME"]
