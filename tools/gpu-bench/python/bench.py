"""Ceilings and rows: our launches and the twins' work on the same buffers.

Started by gpu-bench with the path of a plan. Says what it finds on stdout, a JSON object a line. A rehearsal runs
each row once in the host's memory, for a driver that is an emulator.
"""

import ctypes
import gc
import json
import os
import platform
import signal
import sys
import time

from patching import finite, sets_of


def say(kind, what):
    print(json.dumps({kind: what}), flush=True)


def end_with(parent):
    """Has this process end when gpu-bench does, even where that is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    os.kill(parent, 0)  # raises where it ended before that


def reason(error):
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]


def load_twins():
    """All twins that can be had here; Triton's need Triton."""
    import twins

    try:
        import twins_triton  # noqa: F401  (adds to the same table)
    except ImportError as error:
        say("note", f"Triton is not there ({error}), so its twins are left out: pip install triton")
    return twins.TWINS


def distance(ours, theirs, unordered):
    """The largest difference, as a part of the largest element."""
    ours, theirs = ours.double().flatten(), theirs.double().flatten()
    if unordered:
        ours, theirs = ours.sort().values, theirs.sort().values
    largest = max(theirs.abs().max().item(), 1e-30)
    return (ours - theirs).abs().max().item() / largest


class Bench:
    def __init__(self, plan):
        import torch

        from driver import Driver

        self.torch, self.rehearse = torch, plan["rehearse"]
        self.device = "cpu" if self.rehearse else f"cuda:{plan['ordinal']}"
        self.end = time.monotonic() + plan["seconds"]
        if not self.rehearse:
            torch.cuda.set_device(plan["ordinal"])
            torch.cuda.synchronize()
        self.twins = load_twins()
        self.driver = Driver(plan["ordinal"])
        with open(plan["image"], "rb") as image:
            self.module = self.driver.load(image.read())
        self.functions = {}
        # A rehearsal has no stream of torch's.
        self.own_stream = self.driver.stream() if self.rehearse else None
        properties = None if self.rehearse else torch.cuda.get_device_properties(plan["ordinal"])
        self.l2_bytes = getattr(properties, "L2_cache_size", 0)

    def stream(self):
        return self.own_stream or self.torch.cuda.current_stream().cuda_stream

    def wait(self):
        if self.rehearse:
            self.driver.wait(self.own_stream)
        else:
            self.torch.cuda.synchronize()

    def sets(self, row):
        from sets import InputSet

        for launch in row["launches"]:
            name = launch["kernel"]
            if name not in self.functions:
                self.functions[name] = self.driver.function(self.module, name)
        count = 1 if self.rehearse else sets_of(row["moved_bytes"], self.l2_bytes)
        return [InputSet(row, self.functions, self.device, seed) for seed in range(count)]

    def apart(self, row, first, rivals):
        """How far each twin is from ours on the first set, and how many elements are still poisoned after ours."""
        start = first.snapshot()
        first.launch(self.driver, self.stream())
        self.wait()
        ours = first.snapshot()
        floats = [tensor for tensor in ours.values() if tensor.dtype.is_floating_point]
        unwritten = sum(tensor.isnan().sum().item() for tensor in floats)
        found = {}
        for name in list(rivals):
            first.restore(start)
            try:
                theirs = rivals[name].run(first.tensors, row["numbers"])
            except Exception as error:  # a twin that does not run costs itself alone
                say("note", f"row {row['name']}: {name} is left out: {reason(error)}")
                del rivals[name]
                continue
            compared = [key for key in theirs if key in ours]
            if compared:
                distances = [distance(ours[key], theirs[key], rivals[name].unordered) for key in compared]
                worst = max(distances, key=lambda one: one if one == one else float("inf"))
                found[name] = (finite(worst), rivals[name].allowed)
        first.restore(start)
        self.wait()
        return found, unwritten

    def row(self, row):
        sets = self.sets(row)
        rivals = {}
        for rival in row["rivals"]:
            if rival["twin"] in self.twins:
                rivals[rival["twin"]] = self.twins[rival["twin"]]
        apart, unwritten = self.apart(row, sets[0], rivals)
        times = {} if self.rehearse else self.times(row, sets, rivals)
        found = {"times_us": times, "apart": apart, "unwritten": unwritten}
        say("row", {"name": row["name"], "sets": len(sets), **found})

    def times(self, row, sets, rivals):
        from clock import Contestant, by_turns

        def ours():
            for one in sets:
                one.launch(self.driver, self.stream())

        def theirs(twin):
            return lambda: [twin.run(one.tensors, row["numbers"]) for one in sets] and None

        contestants = {"ours": Contestant(ours, len(sets))}
        for name, twin in rivals.items():
            try:
                contestants[name] = Contestant(theirs(twin), len(sets))
            except Exception as error:  # it cannot be captured, or has no memory left
                say("note", f"row {row['name']}: {name} is not timed: {reason(error)}")
        return by_turns(contestants)

    def rows(self, rows):
        for index, row in enumerate(rows):
            if time.monotonic() > self.end:
                say("late", [row["name"] for row in rows[index:]])
                return
            try:
                self.row(row)
            except self.torch.OutOfMemoryError as error:
                say("note", f"row {row['name']} is left out: {reason(error)}")
            gc.collect()
            if not self.rehearse:
                self.torch.cuda.empty_cache()


def main(path):
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    end_with(plan["parent"])
    if plan["rehearse"]:
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        import torch
    except ImportError as error:
        say("note", f"torch is not there ({error}), so ceilings and times are left out: pip install torch")
        return
    if not plan["rehearse"] and not torch.cuda.is_available():
        say("note", "torch sees no CUDA device, so ceilings and times are left out: install torch with CUDA")
        return
    software = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    bench = Bench(plan)
    if "triton" in sys.modules:
        software["triton"] = sys.modules["triton"].__version__
    say("software", software)
    if not plan["rehearse"]:
        from ceilings import ceilings

        say("ceilings", ceilings(bench.l2_bytes))
    bench.rows(plan["rows"])


if __name__ == "__main__":
    main(sys.argv[1])
