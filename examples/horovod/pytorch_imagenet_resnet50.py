"""ResNet-50 on ImageNet under Horovod: `mpirun -np 8 python pytorch_imagenet_resnet50.py`.

The options, the schedule and the use of Horovod are those of the script of this name among
Horovod's own examples: warm-up over the first epochs (Goyal et al. 2017, arXiv:1706.02677), several
batches an allreduce, fp16 compression, Adasum, a checkpoint an epoch. TensorBoard and progress bars
are left out. The folders hold a folder of pictures for each class.
"""

import argparse
import math
import os

import horovod.torch as hvd
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--train-dir", default=os.path.expanduser("~/imagenet/train"))
parser.add_argument("--val-dir", default=os.path.expanduser("~/imagenet/validation"))
parser.add_argument("--checkpoint-format", default="./checkpoint-{epoch}.pth.tar")
parser.add_argument("--fp16-allreduce", action="store_true")
parser.add_argument("--batches-per-allreduce", type=int, default=1)
parser.add_argument("--use-adasum", action="store_true")
parser.add_argument("--gradient-predivide-factor", type=float, default=1.0)
parser.add_argument("--model", default="resnet50", help="of torchvision.models")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--val-batch-size", type=int, default=32)
parser.add_argument("--epochs", type=int, default=90)
parser.add_argument("--base-lr", type=float, default=0.0125, help="of a single GPU")
parser.add_argument("--warmup-epochs", type=float, default=5)
parser.add_argument("--momentum", type=float, default=0.9)
parser.add_argument("--wd", type=float, default=0.00005)
parser.add_argument("--no-cuda", action="store_true")
parser.add_argument("--seed", type=int, default=42)
args = parser.parse_args()
args.cuda = not args.no_cuda and torch.cuda.is_available()


def train(epoch):
    model.train()
    train_sampler.set_epoch(epoch)
    train_loss, train_accuracy = Metric("train_loss"), Metric("train_accuracy")
    for batch_idx, (data, target) in enumerate(train_loader):
        adjust_learning_rate(epoch, batch_idx)
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        parts = math.ceil(len(data) / args.batch_size)
        for i in range(0, len(data), args.batch_size):
            part = slice(i, i + args.batch_size)
            output = model(data[part])
            train_accuracy.update(accuracy(output, target[part]))
            loss = F.cross_entropy(output, target[part])
            train_loss.update(loss)
            loss.div_(parts)
            loss.backward()
        optimizer.step()
    if hvd.rank() == 0:
        rate = optimizer.param_groups[0]["lr"]
        print(f"epoch {epoch + 1} steps {batch_idx + 1} last rate {rate:.6g}", end=" ")
        print(f"loss {train_loss.mean:.6f} accuracy {train_accuracy.mean:.4f}", flush=True)


def validate(epoch):
    model.eval()
    val_loss, val_accuracy = Metric("val_loss"), Metric("val_accuracy")
    with torch.no_grad():
        for data, target in val_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            val_loss.update(F.cross_entropy(output, target))
            val_accuracy.update(accuracy(output, target))
    if hvd.rank() == 0:
        means = f"loss {val_loss.mean:.6f} accuracy {val_accuracy.mean:.4f}"
        print(f"validation {epoch + 1} {means}", flush=True)


def adjust_learning_rate(epoch, batch_idx):
    """Rise from the rate of one rank to that of all, then fall by 10 at epochs 30, 60 and 80."""
    if epoch < args.warmup_epochs:
        progress = (epoch + (batch_idx + 1) / len(train_loader)) / args.warmup_epochs
        factor = (1 + progress * (hvd.size() - 1)) / hvd.size()
    else:
        factor = 0.1 ** sum(epoch >= milestone for milestone in (30, 60, 80))
    for group in optimizer.param_groups:
        group["lr"] = args.base_lr * hvd.size() * args.batches_per_allreduce * factor


def accuracy(output, target):
    return (output.argmax(1) == target).float().mean()


def save_checkpoint(epoch):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    if hvd.rank() == 0:
        torch.save(state, args.checkpoint_format.format(epoch=epoch + 1))


class Metric:
    """A mean over batches and ranks."""

    def __init__(self, name):
        self.name, self.sum, self.count = name, 0.0, 0

    def update(self, value):
        self.sum += hvd.allreduce(value.detach().cpu(), name=self.name).item()
        self.count += 1

    @property
    def mean(self):
        return self.sum / self.count


if __name__ == "__main__":  # which a worker process is not
    hvd.init()
    torch.manual_seed(args.seed)
    if args.cuda:
        torch.cuda.set_device(hvd.local_rank())
        torch.cuda.manual_seed(args.seed)
        torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if args.cuda else "cpu")

    resume_from_epoch = 0
    for try_epoch in range(args.epochs, 0, -1):
        if os.path.exists(args.checkpoint_format.format(epoch=try_epoch)):
            resume_from_epoch = try_epoch
            break
    # Only rank 0 is sure to see the checkpoints.
    resume_from_epoch = hvd.broadcast(torch.tensor(resume_from_epoch), 0, name="resume").item()

    kwargs = {"num_workers": 4, "pin_memory": True} if args.cuda else {}
    if args.cuda:  # not every InfiniBand driver survives a fork
        kwargs["multiprocessing_context"] = "forkserver"
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train_dataset = datasets.ImageFolder(
        args.train_dir,
        transforms.Compose([
            transforms.RandomResizedCrop(args.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            normalize,
        ]),
    )  # fmt: skip
    train_sampler = DistributedSampler(train_dataset, num_replicas=hvd.size(), rank=hvd.rank())
    train_loader = DataLoader(
        train_dataset,
        args.batch_size * args.batches_per_allreduce,
        sampler=train_sampler,
        **kwargs,
    )
    val_dataset = datasets.ImageFolder(
        args.val_dir,
        transforms.Compose([
            transforms.Resize(args.image_size * 8 // 7),
            transforms.CenterCrop(args.image_size),
            transforms.ToTensor(),
            normalize,
        ]),
    )  # fmt: skip
    val_sampler = DistributedSampler(val_dataset, num_replicas=hvd.size(), rank=hvd.rank())
    val_loader = DataLoader(val_dataset, args.val_batch_size, sampler=val_sampler, **kwargs)

    model = getattr(models, args.model)().to(device)
    # Adasum needs no larger rate for more ranks, but for those that NCCL sums up before.
    lr_scaler = args.batches_per_allreduce * hvd.size() if not args.use_adasum else 1
    if args.use_adasum and args.cuda and hvd.nccl_built():
        lr_scaler = args.batches_per_allreduce * hvd.local_size()
    optimizer = torch.optim.SGD(
        model.parameters(), args.base_lr * lr_scaler, momentum=args.momentum, weight_decay=args.wd
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
        backward_passes_per_step=args.batches_per_allreduce,
        op=hvd.Adasum if args.use_adasum else hvd.Average,
        gradient_predivide_factor=args.gradient_predivide_factor,
    )

    checkpoint = {}
    if resume_from_epoch > 0 and hvd.rank() == 0:
        checkpoint = torch.load(args.checkpoint_format.format(epoch=resume_from_epoch))
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    for epoch in range(resume_from_epoch, args.epochs):
        train(epoch)
        validate(epoch)
        save_checkpoint(epoch)
