# SPDX-License-Identifier: BSD-3-Clause
"""Two processes: DDP and FSDP2, with D(real) + D(fake) before one backward.

That order breaks where a filter's buffer is saved for the backward pass as it is (rosinality#236,
BasicSR#541).
"""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

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


def distributed(model):
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=True)


def sharded(model):
    """Each layer with parameters by itself, then the rest; the filters are no parameters."""
    mesh = init_device_mesh("cpu", (2,))
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def worker(rank, wrap, meeting, results):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    parallel = wrap(make_discriminator())
    real, fake = images(rank)
    (parallel(real).mean() - parallel(fake).mean()).backward()
    grads = [whole(p.grad) for p in parallel.parameters()]
    filters = list(parallel.buffers())
    assert all(type(f) is torch.Tensor and f.dtype == torch.float32 for f in filters)
    if rank == 0:
        torch.save((grads, filters), results)
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", [distributed, sharded], ids=["DDP", "FSDP2"])
def test_two_forwards_then_one_backward(wrap, tmp_path):
    results = tmp_path / "gradients.pt"
    mp.spawn(worker, (wrap, tmp_path / "meeting", results), nprocs=2)  # raises what a worker raises

    model = make_discriminator()
    for rank in range(2):
        real, fake = images(rank)
        ((model(real).mean() - model(fake).mean()) / 2).backward()
    grads, filters = torch.load(results)
    for grad, parameter in zip(grads, model.parameters(), strict=True):
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0
        torch.testing.assert_close(grad, parameter.grad)
    for ours, expected in zip(filters, model.buffers(), strict=True):
        assert torch.equal(ours, expected)
