"""What a reader of a page has already: the model, the data and the imports that its Python takes.

`PRELUDES[page][n]` runs before the page's n-th block of Python, in the page's one namespace, on
both ranks; `after` holds what must then be true.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prelude:
    """before, after: source. fresh: the block begins a process of its own."""

    before: str = ""
    after: str = ""
    fresh: bool = False


CLASSES = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
epochs = 2
train_set = TensorDataset(torch.rand(96, 1, 8, 8), torch.arange(96) % 10)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
WITH_HF = f"import hvdfilter as hf\n{CLASSES}"

REGRESSION = """
train_set = TensorDataset(torch.rand(96, 4), torch.rand(96))
model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
"""

LANGUAGE = """
from types import SimpleNamespace

class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, item):
        words = (torch.arange(12) * item) % 20
        return {"input_ids": words, "labels": words}

train_set = Texts()
embedding = nn.Embedding(20, 20)
model = lambda words: SimpleNamespace(logits=embedding(words))
optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
"""

# In torchrun's place: the ranks meet through a file, over gloo since there is no GPU; the model is
# wrapped once they have met.
TORCHRUN = f"""{CLASSES}
import os
import torch.distributed as dist

start = dist.init_process_group
place = {{
    "init_method": f"file://{{os.getcwd()}}/meeting",
    "rank": int(os.environ["OMPI_COMM_WORLD_RANK"]),
    "world_size": int(os.environ["OMPI_COMM_WORLD_SIZE"]),
}}
dist.init_process_group = lambda backend: start("gloo", **place)
wrapped = []

def ddp_model(x):
    if not wrapped:
        wrapped.append(nn.parallel.DistributedDataParallel(model))
    return wrapped[0](x)
"""

ALL_NOTED = """
assert filt.next_epoch == epochs and filt.world.size == 2
assert torch.isfinite(torch.from_numpy(filt.book.column("loss"))).all()
"""

A_FILTER = f"""{WITH_HF}
filt = hf.Filter(len(train_set), "POLICY", epochs=epochs)
loader = DataLoader(hf.Indexed(train_set), 16, sampler=filt.sampler())
"""

AN_EPOCH = f"""{A_FILTER}
filt.begin_epoch(0, optimizer)
ids, x, y = next(iter(loader))
"""

A_WHOLE_EPOCH = """
for ids, x, y in loader:
    filt.loss(model(x), y, ids).backward()
filt.end_epoch()
"""

PAIRS = """
import hvdfilter as hf
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
image_net, text_net = nn.Linear(6, 4), nn.Linear(5, 4)
model = nn.ModuleList([image_net, text_net])
train_set = TensorDataset(torch.rand(64, 6), torch.rand(64, 5))
filt = hf.Filter(len(train_set), "loss", epochs=3)
loader = DataLoader(hf.Indexed(train_set), 8, sampler=filt.sampler())
filt.begin_epoch(0)
ids, x, y = next(iter(loader))
"""

PRELUDES: dict[str, dict[int, Prelude]] = {
    "README.md": {
        0: Prelude(CLASSES, ALL_NOTED),
        1: Prelude(REGRESSION, ALL_NOTED),
        2: Prelude(LANGUAGE, ALL_NOTED),
        3: Prelude(TORCHRUN, ALL_NOTED, fresh=True),
    },
    "docs/scripts.md": {
        0: Prelude(AN_EPOCH.replace("POLICY", "grand"), "filt.settle()"),
        1: Prelude(
            A_FILTER.replace("POLICY", "loss")
            + "from torch.optim.lr_scheduler import OneCycleLR\nschedule_of_mine = lambda p: 1 - p",
            "assert rate == 1 - filt.progress",
        ),
        2: Prelude(
            AN_EPOCH.replace("POLICY", "loss")
            + A_WHOLE_EPOCH
            + "rank, save = filt.world.rank, lambda state: kept.append(state)\nkept = []",
            "assert len(kept) == (rank == 0)",
        ),
        3: Prelude(
            AN_EPOCH.replace("POLICY", "loss") + A_WHOLE_EPOCH + "accuracy = 0.5",
            "assert (run.folder.path / 'metrics.jsonl').is_file()",
        ),
        4: Prelude(
            "from dataclasses import dataclass\nfrom typing import ClassVar",
            "filt = hf.Filter(100, Slowest(0.6), epochs=3)\nfilt.begin_epoch(0)",
        ),
        5: Prelude(
            "import numpy\nread = lambda train: (torch.zeros(9, 1, 8, 8, dtype=torch.uint8), "
            "numpy.arange(9) % 2)",
            """
from hvdfilter import models
from hvdfilter.data import open_dataset
import sys
sys.modules["mine"] = type(sys)("mine")
sys.modules["mine"].__dict__.update(open_set=open_set, make_net=make_net)
train, test = (open_dataset("mine:open_set", train=each, limit=5) for each in (True, False))
assert len(train) == 5 and train.class_names == ("jay", "wren")
assert test.description is train.description or test.description == train.description
x = train.batch([1, 4])[0].float()
assert models.make("mine:make_net", 1, 2, 8)(x).shape == (2, 2)
""",
        ),
    },
    "docs/gradient-clustering.md": {
        0: Prelude(WITH_HF, "assert (filt.book.column('cluster') >= 0).all()"),
    },
    "docs/hard-negatives.md": {
        0: Prelude(PAIRS, "assert losses.shape == (8,) and image_net.weight.grad is not None"),
        1: Prelude(
            "global_batch = 16",
            "assert filt.hidden >= 0",
        ),
    },
    "docs/large-batch.md": {
        0: Prelude(WITH_HF.replace("epochs = 2", "epochs = 7"), "assert filt.hidden == 38"),
        1: Prelude(
            "import hvdfilter.sharpness\nbatches = list(DataLoader(train_set, 32))",
            "assert found.converged and grid.loss.shape == (21, 21)",
        ),
    },
    "docs/robustness.md": {
        0: Prelude(
            "import hvdfilter.robust, torch\ntorch.manual_seed(0)\n"
            "features = torch.randn(40, 2)\nlabels = (features[:, 0] > 0).long()\n"
            "features[:, 0] += 4 * labels - 2",
            "assert 0 < fit.margin <= fit.bound * (1 + 1e-6)",
        ),
    },
    "docs/policies.md": {
        0: Prelude(
            WITH_HF + "labels = train_set.tensors[1]",
            "filt.begin_epoch(0)\nassert filt.hidden == 0",
        )
    },
    "hvdfilter/agreement/README.md": {
        0: Prelude(
            "import hvdfilter as hf\nimport numpy as np\nkeep = np.arange(100) % 3 == 0",
            "ids = np.arange(hf.init().rank, 100, 2)\n"
            "mask = hf.agree(keep[ids].astype(np.float32), ids, 100, int(keep.sum()))\n"
            "assert mask.digest == digest",
        ),
    },
}
