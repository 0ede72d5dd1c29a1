"""Horovod's three examples and their adoption: few lines, the same training, fewer steps."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path

import pytest

from tests.distributed.launch import ROOT, check_ranks
from tests.frameworks.cases import beside

FOLDER = ROOT / "examples" / "horovod"
PAIRS = {
    "pytorch_mnist.py": "filtered_mnist.py",
    "pytorch_imagenet_resnet50.py": "filtered_imagenet_resnet50.py",
    "pytorch_synthetic_benchmark.py": "filtered_synthetic_benchmark.py",
}
# Torch's sampler shuffles in an order of its own. Given the filter's, all else must be the same.
TORCHS = "DistributedSampler(train_dataset, num_replicas=hvd.size(), rank=hvd.rank())"
OURS = "hf.ShardSampler(hf.KeepMask.full(1437), hvd.rank(), hvd.size())"
WEIGHTS = """
flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double()
print(f"<{hvd.rank()} {flat.sum().item():.17g} {flat.norm().item():.17g}>", flush=True)
"""


def script(name: str, *changes: tuple[str, str]) -> str:
    """The source of an example, each change made where its text stands, which must be once."""
    source = (FOLDER / name).read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{name}: {source.count(old)} times {old!r}"
        source = source.replace(old, new)
    return source


@pytest.mark.parametrize(("plain", "filtered"), PAIRS.items())
def test_adoption_takes_ten_lines_at_most(plain: str, filtered: str) -> None:
    before, after = (
        script(name).split('"""', 2)[2].strip().splitlines() for name in (plain, filtered)
    )
    lines = [line for line in difflib.ndiff(before, after) if line[2:].strip()]
    added = [line for line in lines if line.startswith("+ ")]
    removed = [line for line in lines if line.startswith("- ")]
    assert 0 < len(added) <= 10 and len(removed) <= 10, "\n".join(added + removed)
    said = re.search(rf"\[{filtered}\]\({filtered}\) \| (\d+)", (FOLDER / "README.md").read_text())
    assert said and int(said[1]) == len(added)


def mnist(ours: bool, *options: str) -> tuple[list[str], list[str]]:
    """(lines that were printed, weights of each rank) of two epochs on two ranks."""
    if ours:
        source = script(
            "filtered_mnist.py",
            ('"kakurenbo"', '"full"'),
            # The same function of torch's, so that the same bits can be asked for.
            (
                "filt.loss(model(data), target, ids)",
                'filt.update(F.nll_loss(model(data), target, reduction="none"), ids)',
            ),
        )
    else:
        theirs = script(
            "pytorch_mnist.py", (TORCHS, OURS), ("set_epoch(epoch)", "set_epoch(epoch - 1)")
        )
        source = "import hvdfilter as hf\n" + theirs
    out = check_ranks(source + WEIGHTS, 2, "--epochs", "2", *options)
    return sorted(re.findall(r"test loss \S+ accuracy \S+%", out)), sorted(
        re.findall(r"<.*?>", out)
    )


# Three times the slowest seen.
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(80)]


# One at a time: two runs of one script differ in the last bits where Adasum works in fp16.
@pytest.mark.distributed
@pytest.mark.parametrize("option", ["--fp16-allreduce", "--use-adasum"])
def test_what_hides_nothing_trains_the_same_bits(option: str) -> None:
    plain, filtered = mnist(False, option), mnist(True, option)
    assert len(plain[0]) == 2 and len(plain[1]) == 2
    assert plain == filtered


@pytest.mark.distributed
def test_mnist_hides_samples_and_takes_fewer_steps() -> None:
    source = script("filtered_mnist.py") + "\nprint(f'<{filt.hidden}>', flush=True)"
    options = ["--epochs", "9", "--lr", "0.05", "--batch-size", "32", "--log-interval", "1"]
    out = check_ranks(source, 2, *options)
    lines = re.findall(r"epoch (\d+) \[\d+/(\d+)\] loss", out)
    steps = [sum(int(epoch) == number for epoch, _ in lines) for number in range(1, 10)]
    lengths = {int(epoch): int(length) for epoch, length in lines}
    assert steps[0] == 2 * 23 and lengths[1] == 719  # of 1,437 samples, on two ranks
    assert steps[8] < steps[0] and lengths[9] < 719
    assert all(s == 2 * -(-lengths[e] // 32) for e, s in enumerate(steps, 1))
    assert int(re.findall(r"<(\d+)>", out)[0]) >= 1437 - 2 * lengths[9]
    assert float(re.findall(r"accuracy (\S+)%", out)[-1]) > 80


def needs_torchvision() -> None:
    """Skip where it is not installed, which only the processes that are started import."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("this example needs torchvision")


def pictures(folder: Path) -> list[str]:
    """Two classes of small pictures, bright and dark; returns the options that name them."""
    image = pytest.importorskip("PIL.Image")
    for part, number in (("train", 12), ("val", 4)):
        for label, grey in (("bright", 200), ("dark", 50)):
            (folder / part / label).mkdir(parents=True)
            for n in range(number):
                made = image.new("RGB", (40, 40), (grey + n, grey, grey - n))
                made.save(folder / part / label / f"{n}.png")
    return [
        "--train-dir", str(folder / "train"), "--val-dir", str(folder / "val"),
        "--checkpoint-format", str(folder / "checkpoint-{epoch}.pth.tar"), "--image-size", "64",
        "--model", "resnet18", "--batch-size", "4", "--warmup-epochs", "2", "--base-lr", "0.01",
    ]  # fmt: skip


@pytest.mark.distributed
def test_imagenet_accumulates_warms_up_hides_and_resumes(tmp_path: Path) -> None:
    needs_torchvision()
    options = pictures(tmp_path)
    half = ('policy="kakurenbo"', 'policy=hf.policies.make("loss", keep=0.5)')
    begin = "filt.begin_epoch(epoch, optimizer)"
    told = (begin, f"print(f'<{{epoch}} {{{begin}.digest}}>', flush=True)")
    source = script("filtered_imagenet_resnet50.py", half, told)
    more = ["--epochs", "5", "--batches-per-allreduce", "2", "--fp16-allreduce"]
    out = check_ranks(source, 2, *options, *more, env=beside())
    found = re.findall(r"epoch (\d) steps (\d+) last rate (\S+) loss", out)
    # 12 samples a rank, 8 a step: the last step of the warm-up has the rate of both ranks and of
    # both batches of a step, on whatever number of steps the epoch has.
    assert [rate for _, _, rate in found] == ["0.03", "0.04", "0.04", "0.04", "0.04"]
    # The second epoch hides the half whose loss is least in the first.
    assert [number for _, number, _ in found[:2]] == ["2", "1"]
    # Begun again after the third epoch: what is hidden next is what had been hidden then.
    for epoch in (4, 5):
        (tmp_path / f"checkpoint-{epoch}.pth.tar").unlink()
    again = check_ranks(source, 2, *options, *more, env=beside())
    assert re.findall(r"epoch (\d) steps", again) == ["4", "5"]
    masks, masks_again = (dict(re.findall(r"<(\d) (\w+)>", text)) for text in (out, again))
    assert len(masks) == 5 and len(set(masks.values())) > 2
    assert masks_again["3"] == masks["3"]


@pytest.mark.distributed
def test_the_benchmark_passes_more_epochs_in_the_same_steps() -> None:
    needs_torchvision()
    # 28 of 40 samples: four batches a rank and epoch in the place of five.
    random = ("epochs=1000)", 'policy="random", epochs=1000)')
    # A second for each iteration, so that a rate is the number of images.
    clock = ("\n    rates.append(", "\n    seconds = 1.0\n    rates.append(")
    source = script("filtered_synthetic_benchmark.py", random, clock)
    source += "\nprint(f'<{filt.epoch} {filt.hidden}>', flush=True)"
    options = ["--model", "resnet18", "--image-size", "64", "--batch-size", "4"]
    steps = ["--num-warmup-batches", "3", "--num-batches-per-iter", "5", "--num-iters", "4"]
    out = check_ranks(source, 2, *options, *steps, "--use-adasum", env=beside())
    # Of a rank's 14 samples the last batch holds two; three batches of the first epoch warm up.
    batches = ([4, 4, 4, 2] * 6)[3:23]
    images = [sum(batches[first : first + 5]) for first in range(0, 20, 5)]
    told = re.findall(r"iteration \d: (\S+) images/s", out)
    assert [float(rate) for rate in told] == images and f"CPU: {sum(images) / 4:.1f} +- " in out
    # The 23rd step is the third of the sixth epoch; in full it would be the third of the fifth.
    assert set(re.findall(r"<(\d+) (\d+)>", out)) == {("5", "12")}
