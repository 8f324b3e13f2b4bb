"""One training run: weights, their average, optimisers; alone or in several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHT_DECAY = 1e-3
CLIP_NORM = 1.0
EMA_DECAY = 0.995
STATE = "state.safetensors"
"""Of a work folder: a run as it was last saved."""
HEADS = {"code.": 0.1, "readings.": 8.0}
"""What learns beside the network by AdamW, and its share of the rate: a linear code comes fitted, \
readings have to find what there is."""
_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW remembers of a parameter."""


def join_workers() -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) outside `torchrun`."""
    if "RANK" not in os.environ:
        return 0, 1
    dist.init_process_group("gloo", timeout=timedelta(hours=6))
    return dist.get_rank(), dist.get_world_size()


def add_up(tensors: Iterable[Tensor], workers: int) -> None:
    """Give every worker the sum of all workers' tensors, in place."""
    if workers == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    sums = torch.split(flat, [t.numel() for t in tensors])
    for t, total in zip(tensors, sums, strict=True):
        t.copy_(total.view_as(t))


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16: CPUs without instructions for it crawl."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


class Muon:
    """Momentum whose updates are orthogonalised: all directions of a conv's weight learn alike.

    A convolution's weight counts as the matrix outputs x (inputs * taps). Every singular value of
    the momentum becomes about 1 by five Newton-Schulz steps (K. Jordan, 2024), scaled so that
    AdamW's learning rates fit (arXiv 2502.16982). Each worker does its share of the matrices.
    """

    def __init__(self, weights: list[nn.Parameter], rank: int = 0, workers: int = 1) -> None:
        self.weights, self.rank, self.workers = weights, rank, workers
        self.momentum = [torch.zeros_like(p) for p in weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the weights that have a gradient."""
        trained = [i for i, p in enumerate(self.weights) if p.grad is not None]
        # By size, so that the workers' shares weigh about the same.
        turns = sorted(trained, key=lambda i: -self.weights[i].numel())
        mine = set(turns[self.rank :: self.workers])
        updates = []
        for i in trained:
            gradient, momentum = self.weights[i].grad, self.momentum[i]
            assert gradient is not None
            momentum.lerp_(gradient, 0.05)
            ahead = torch.lerp(gradient, momentum, 0.95).flatten(1)
            updates.append(orthogonal(ahead) if i in mine else torch.zeros_like(ahead))
        add_up(updates, self.workers)
        for i, update in zip(trained, updates, strict=True):
            p = self.weights[i]
            p.mul_(1 - rate * WEIGHT_DECAY)
            p.sub_(update.view(p.shape), alpha=0.2 * rate * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with singular values near 1 and the same singular vectors."""
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    # Every step is a polynomial of the Gram matrix times x: until the end only small matrices are
    # multiplied. Not in bfloat16, whose rounding of the Gram matrix hides small singular values.
    gram = x @ x.mT
    total = torch.eye(x.size(0), device=x.device)
    for _ in range(5):
        factor = 2.0315 * gram @ gram - 4.775 * gram
        factor.diagonal().add_(3.4445)
        total = factor @ total
        gram = factor @ gram @ factor
    y: Tensor = total @ x
    return y.mT if tall else y


class Run:
    """Weights, their moving average, the optimisers and the step, saved and resumed together."""

    def __init__(self, nets: nn.Module, work: Path, device: torch.device) -> None:
        self.file, self.device = work / STATE, device
        self.rank, self.workers = join_workers()
        self.step = 0
        self.hours = 0.0
        self.clip_errors: dict[str, float] = {}
        """What each clip loses by and large, as the first worker knows it."""
        self.named = dict(nets.named_parameters())
        self.parameters = list(self.named.values())
        self.average = [p.detach().clone() for p in self.parameters]
        heads = {name: [p for n, p in self.named.items() if n.startswith(name)] for name in HEADS}
        net = {n: p for n, p in self.named.items() if not n.startswith(tuple(HEADS))}
        self.muon = Muon([p for p in net.values() if p.ndim > 1], self.rank, self.workers)
        vectors = [p for p in net.values() if p.ndim == 1]
        groups = [{"params": vectors, "share": 1.0}]
        groups += [{"params": heads[name], "share": HEADS[name]} for name in HEADS if heads[name]]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
        if self.file.exists():
            self._load()

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of the optimisers and of the average."""
        for group in self.adam.param_groups:
            group["lr"] = rate * group["share"]
        for p in self.parameters:
            p.grad = None
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        add_up(gradients, self.workers)
        torch._foreach_div_(gradients, self.workers)
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.adam.step()
        self.muon.step(rate)
        self.step += 1
        decay = min(EMA_DECAY, self.step / (self.step + 20))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        yield
        self._swap()

    def _swap(self) -> None:
        for p, average in zip(self.parameters, self.average, strict=True):
            p.data, average.data = average.data, p.data

    def save(self) -> None:
        """Write everything beside its name and rename it: a kill at any moment is harmless."""
        tensors = {f"weight/{name}": p.detach() for name, p in self.named.items()}
        tensors |= {f"average/{n}": t for n, t in zip(self.named, self.average, strict=True)}
        tensors |= {f"momentum/{i}": t for i, t in enumerate(self.muon.momentum)}
        for name, p in self.named.items():
            if state := self.adam.state.get(p):
                tensors |= {f"adam/{kind}/{name}": state[kind] for kind in _ADAM}
        notes = {"step": str(self.step), "hours": str(self.hours)}
        notes["clip_errors"] = json.dumps(self.clip_errors)
        part = self.file.with_suffix(".part")
        save_file({k: t.contiguous() for k, t in tensors.items()}, part, notes)
        part.replace(self.file)

    def _load(self) -> None:
        with safe_open(self.file, "pt") as stored:
            notes = stored.metadata()
        self.step, self.hours = int(notes["step"]), float(notes["hours"])
        self.clip_errors = json.loads(notes["clip_errors"])
        tensors = load_file(self.file, str(self.device))
        for (name, p), average in zip(self.named.items(), self.average, strict=True):
            p.data.copy_(tensors[f"weight/{name}"])
            average.copy_(tensors[f"average/{name}"])
        for i, momentum in enumerate(self.muon.momentum):
            momentum.copy_(tensors[f"momentum/{i}"])
        for name, p in self.named.items():
            if f"adam/{_ADAM[0]}/{name}" in tensors:
                self.adam.state[p] = {kind: tensors[f"adam/{kind}/{name}"] for kind in _ADAM}
