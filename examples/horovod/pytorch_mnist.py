"""Handwritten digits under Horovod: `mpirun -np 2 python pytorch_mnist.py`.

The options and the use of Horovod are those of the script of this name among Horovod's own
examples; the digits are scikit-learn's, enlarged to 28x28, so that nothing is downloaded.
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--test-batch-size", type=int, default=1000)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--momentum", type=float, default=0.5)
parser.add_argument("--no-cuda", action="store_true")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--log-interval", type=int, default=10)
parser.add_argument("--fp16-allreduce", action="store_true")
parser.add_argument("--use-mixed-precision", action="store_true")
parser.add_argument("--use-adasum", action="store_true")
parser.add_argument("--gradient-predivide-factor", type=float, default=1.0)
args = parser.parse_args()
args.cuda = not args.no_cuda and torch.cuda.is_available()
if args.use_mixed_precision and not args.cuda:
    parser.error("--use-mixed-precision needs a GPU")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)
        )

    def forward(self, x):
        return F.log_softmax(self.classifier(self.features(x)), dim=1)


def train(epoch):
    model.train()
    train_sampler.set_epoch(epoch)
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        with torch.autocast("cuda", enabled=args.use_mixed_precision):
            loss = F.nll_loss(model(data), target)
        if args.use_mixed_precision:
            scaler.scale(loss).backward()
            # The ranks' gradients must have met before they are unscaled.
            optimizer.synchronize()
            scaler.unscale_(optimizer)
            with optimizer.skip_synchronize():
                scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        if batch_idx % args.log_interval == 0:
            done = batch_idx * len(data)
            print(f"epoch {epoch} [{done}/{len(train_sampler)}] loss {loss.item():.6f}", flush=True)


def test():
    model.eval()
    sums = torch.zeros(2)
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data.to(device)).cpu()
            sums[0] += F.nll_loss(output, target, reduction="sum")
            sums[1] += (output.argmax(1) == target).sum()
    loss, accuracy = hvd.allreduce(sums / len(test_sampler), name="test").tolist()
    if hvd.rank() == 0:
        print(f"test loss {loss:.4f}, accuracy {100 * accuracy:.2f}%", flush=True)


hvd.init()
torch.manual_seed(args.seed)
if args.cuda:
    torch.cuda.set_device(hvd.local_rank())
    torch.cuda.manual_seed(args.seed)
device = torch.device("cuda" if args.cuda else "cpu")
torch.set_num_threads(1)

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
images = F.interpolate(images, 28, mode="bilinear")
images, labels = (images - images.mean()) / images.std(), torch.tensor(labels)
train_dataset = TensorDataset(images[:1437], labels[:1437])
test_dataset = TensorDataset(images[1437:], labels[1437:])
train_sampler = DistributedSampler(train_dataset, num_replicas=hvd.size(), rank=hvd.rank())
train_loader = DataLoader(train_dataset, args.batch_size, sampler=train_sampler)
test_sampler = DistributedSampler(test_dataset, num_replicas=hvd.size(), rank=hvd.rank())
test_loader = DataLoader(test_dataset, args.test_batch_size, sampler=test_sampler)

model = Net().to(device)
# Adasum needs no larger rate for more ranks, but for those that NCCL sums up before.
lr_scaler = hvd.size() if not args.use_adasum else 1
if args.use_adasum and args.cuda and hvd.nccl_built():
    lr_scaler = hvd.local_size()
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr * lr_scaler, momentum=args.momentum)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
hvd.broadcast_optimizer_state(optimizer, root_rank=0)
optimizer = hvd.DistributedOptimizer(
    optimizer,
    named_parameters=model.named_parameters(),
    compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
    op=hvd.Adasum if args.use_adasum else hvd.Average,
    gradient_predivide_factor=args.gradient_predivide_factor,
)
if args.use_mixed_precision:
    scaler = torch.amp.GradScaler("cuda")

for epoch in range(1, args.epochs + 1):
    train(epoch)
    test()
