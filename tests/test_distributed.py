# SPDX-License-Identifier: BSD-3-Clause
"""Two processes: DDP with D(real) + D(fake) before one backward (rosinality#236, BasicSR#541)."""

import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from resample_layers import UpFirDnDownsample, UpFirDnSmooth


def make_discriminator():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        UpFirDnSmooth(downsample_factor=2, kernel_size=3),
        nn.Conv2d(4, 4, 3, stride=2),
        UpFirDnDownsample([[1, 2], [3, 4]]),
        nn.Flatten(),
        nn.Linear(64, 1),
    )


def images(rank):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(2, 2, 3, 16, 16, generator=generator)


def worker(rank, port, results):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = make_discriminator()
    parallel = nn.parallel.DistributedDataParallel(model, broadcast_buffers=True)
    real, fake = images(rank)
    (parallel(real).mean() - parallel(fake).mean()).backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], results)
    dist.destroy_process_group()


def test_two_forwards_then_one_backward(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = tmp_path / "gradients.pt"
    mp.spawn(worker, (port, results), nprocs=2)  # raises what a worker raises

    model = make_discriminator()
    for rank in range(2):
        real, fake = images(rank)
        ((model(real).mean() - model(fake).mean()) / 2).backward()
    for grad, parameter in zip(torch.load(results), model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)
