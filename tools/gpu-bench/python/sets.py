"""Input sets: what a row's kernels and its twins work on, and the launches over it."""

import torch

from patching import family, patched


def values(fill, shape, kind, device, generator):
    """A tensor with what the plan says is in it at first."""

    def normal():
        return torch.randn(shape, device=device, generator=generator)

    def integers(low, high):
        return torch.randint(low, high, shape, device=device, generator=generator, dtype=kind)

    if fill == "normal":
        return normal().to(kind)
    if fill == "little":
        return normal().mul_(0.01).to(kind)
    if fill == "squares":
        return normal().mul_(0.01).square_().to(kind)
    if fill == "scales":
        return torch.rand(shape, device=device, generator=generator).mul_(0.01).add_(0.001).to(kind)
    if fill == "slot":
        return integers(-(1 << 20), 1 << 20)
    if fill == "master":
        return integers(-(1 << 40), 1 << 40)
    if fill == "bits":
        return integers(-(1 << 31), (1 << 31) - 1)
    if fill == "codes":
        return integers(-127, 128)
    if fill == "poison":
        poisoned = torch.empty(shape, dtype=kind, device=device)
        poisoned.view(torch.uint8).fill_(255)
        return poisoned
    raise ValueError(f"the plan fills a tensor with {fill!r}")


class InputSet:
    """Tensors by their names, groups as one (`x` has a row for each of `x.0`, `x.1`, ...), and the launches."""

    def __init__(self, row, functions, device, seed):
        generator = torch.Generator(device=device).manual_seed(seed)
        self.tensors, self.changes, members = {}, [], {}
        for tensor in row["tensors"]:
            members.setdefault(family(tensor["name"])[0], []).append(tensor)
        for group, alike in members.items():
            first = alike[0]
            alone = family(first["name"])[1] is None
            shape = (first["len"],) if alone else (len(alike), first["len"])
            made = values(first["fill"], shape, getattr(torch, first["type"]), device, generator)
            self.tensors[group] = made
            if first["changes"]:
                self.changes.append(group)
        self.held, addresses = [], []
        for buffer in row["buffers"]:
            addresses.append(self.place(row, buffer, device))
        for buffer, held in zip(row["buffers"], self.held):
            if buffer["contents"] is not None:
                raw = patched(buffer["contents"], addresses)
                held[: len(raw)] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        self.launches = [
            (functions[one["kernel"]], one["blocks"], one["threads"], patched(one["params"], addresses))
            for one in row["launches"]
        ]

    def place(self, row, buffer, device):
        """Where a buffer of the plan is here; what is no tensor is made, poisoned."""
        if buffer["tensor"] is None:
            self.held.append(torch.full((buffer["len_bytes"],), 255, dtype=torch.uint8, device=device))
            return self.held[-1].data_ptr()
        self.held.append(None)
        group, index = family(row["tensors"][buffer["tensor"]]["name"])
        tensor = self.tensors[group] if index is None else self.tensors[group][index]
        if tensor.nbytes != buffer["len_bytes"] or tensor.data_ptr() % 16 != 0:
            raise ValueError(f"{group} is not as the launches were recorded for")
        return tensor.data_ptr()

    def launch(self, driver, stream):
        for function, blocks, threads, params in self.launches:
            driver.launch(function, blocks, threads, params, stream)

    def snapshot(self):
        return {name: self.tensors[name].clone() for name in self.changes}

    def restore(self, snapshot):
        for name, tensor in snapshot.items():
            self.tensors[name].copy_(tensor)
