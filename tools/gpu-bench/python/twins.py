"""The same results by torch, as somebody would write them who knows it well.

A twin takes the tensors of an input set and the row's numbers. It changes in place what the row changes, and gives
what else it made; what has a tensor's name is compared with what our kernels wrote.
"""

import functools
from dataclasses import dataclass
from typing import Callable

import torch


@dataclass(frozen=True)
class Twin:
    run: Callable
    # Largest difference from ours, as a part of the largest element.
    allowed: float
    # The order of elements is nobody's.
    unordered: bool = False


TWINS = {}


def twin(allowed, unordered=False):
    def add(run):
        TWINS[run.__name__] = Twin(run, allowed, unordered)
        return run

    return add


@twin(allowed=0.0)
def commit_loop(t, n):
    master = t["master"]
    for slot, weight in zip(t["slot"], n["weights"]):
        master.add_(slot, alpha=weight)
    return {"master": master}


@twin(allowed=1e-6)
def weighted_sum_eager(t, n):
    x, weights = t["x"], n["weights"]
    out = x[0].float() * weights[0]
    for k in range(1, len(weights)):
        out.add_(x[k], alpha=weights[k])
    return {"out": out, "norm": torch.dot(out, out)}


@functools.cache
def compiled_sum(weights):
    def weighted_sum(x):
        out = x[0] * weights[0]
        for k in range(1, len(weights)):
            out = out + x[k] * weights[k]
        return out, (out * out).sum()

    return torch.compile(weighted_sum, dynamic=False)


@twin(allowed=1e-6)
def weighted_sum_compiled(t, n):
    out, norm = compiled_sum(tuple(n["weights"]))(t["x"])
    return {"out": out, "norm": norm}


@twin(allowed=1e-6)
def weighted_sum_q8_eager(t, n):
    out = None
    for codes, scales, weight in zip(t["codes"], t["scales"], n["weights"]):
        values = (codes.view(-1, 32) * scales.float()[:, None]).view(-1)
        out = values * weight if out is None else out.add_(values, alpha=weight)
    return {"out": out, "norm": torch.dot(out, out)}


# A product that lies just between two codes may go either way.
@twin(allowed=0.01)
def quantise_q8_eager(t, n):
    value = (t["input"] + t["residue"]).view(-1, 32)
    wanted = value.abs().amax(dim=1) / 127.0
    scales = wanted.half()
    # The next one up where it was rounded down: positive ones follow each other as integers do.
    scales = (scales.view(torch.int16) + (scales.float() < wanted).short()).view(torch.float16)
    scales = torch.where(scales < 2.0**-14, torch.zeros_like(scales), scales)
    step = scales.float()[:, None]
    codes = torch.where(step > 0, value * (1.0 / step), 0.0).round_().clamp_(-127, 127)
    torch.sub(value, codes * step, out=t["residue"].view(-1, 32))
    return {"codes": codes.to(torch.int8).view(-1), "scales": scales, "residue": t["residue"]}


@twin(allowed=1e-6)
def median_sort(t, n):
    ordered, middle = torch.sort(t["x"], dim=0).values, t["x"].shape[0] // 2
    return {"out": (ordered[middle - 1] + ordered[middle]) * 0.5}


@twin(allowed=0.0)
def median_torch(t, n):
    """Of an even number the lower one of both in the middle: another result, so none is compared."""
    return {"lower": torch.median(t["x"], dim=0).values}


@twin(allowed=1e-6)
def trimmed_mean_sort(t, n):
    ordered, trim = torch.sort(t["x"], dim=0).values, n["trim"]
    return {"out": ordered[trim : len(ordered) - trim].mean(dim=0)}


# Among equal magnitudes ours takes the first, torch any: the magnitudes are the same.
@twin(allowed=0.0, unordered=True)
def top_k_torch(t, n):
    indices = torch.topk(t["x"].abs(), n["count"], sorted=False).indices
    return {"places": indices, "values": t["x"][indices]}


@twin(allowed=0.02)
def lora_forward_cublas(t, n):
    width, rank = n["width"], n["rank"]
    a, b = t["a"].view(rank, width), t["b"].view(rank, width)
    y = t["y"].view(-1, width)
    y.addmm_(t["x"].view(-1, width) @ a.T, b, alpha=n["scale"])
    return {"y": t["y"]}


@twin(allowed=0.02)
def lora_backward_cublas(t, n):
    width, rank, scale = n["width"], n["rank"], n["scale"]
    a, b = t["a"].view(rank, width), t["b"].view(rank, width)
    x, g = t["x"].view(-1, width), t["g"].view(-1, width)
    h = t["h"].view(-1, rank).to(g.dtype)
    t["db"].view(rank, width).add_(h.T @ g, alpha=scale)
    back = (g @ b.T).mul_(scale)
    t["da"].view(rank, width).add_(back.T @ x)
    t["dx"].view(-1, width).addmm_(back, a)
    return {name: t[name] for name in ("da", "db", "dx")}


@twin(allowed=1e-5)
def adamw_fused(t, n):
    step = torch.full((), float(n["step"]), device=t["params"].device)
    torch._fused_adamw_(
        [t["params"]], [t["gradient"]], [t["mean"]], [t["variance"]], [], [step],
        lr=n["learning_rate"], beta1=n["beta1"], beta2=n["beta2"], weight_decay=n["weight_decay"],
        eps=n["epsilon"], amsgrad=False, maximize=False,
    )
    return {name: t[name] for name in ("mean", "variance", "params")}
