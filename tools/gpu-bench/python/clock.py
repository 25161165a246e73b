"""Times by graphs: work is captured once, replayed by turns, and measured by events on the device."""

import torch

from patching import replays_of, rounds_of

# The device sleeps so long before each measurement that the host gets ahead of it, and no gap is measured.
AHEAD_CYCLES = 400_000
WARM = 3


class Contestant:
    """Work that goes once through all sets, as a graph that is long enough."""

    def __init__(self, work, sets):
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM):  # compilers compile, libraries choose
                work()
        self.stream.synchronize()
        self.graph, rounds = self.capture(work, 1), 1
        pass_us = min(self.replay_us() for _ in range(WARM))
        if rounds_of(pass_us) > 1:
            rounds = rounds_of(pass_us)
            self.graph = self.capture(work, rounds)
        self.calls = sets * rounds
        self.replays = replays_of(pass_us * rounds)
        self.events = []

    def capture(self, work, rounds):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for _ in range(rounds):
                work()
        return graph

    def submit(self):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(AHEAD_CYCLES)
            begin.record()
            self.graph.replay()
            end.record()
        return begin, end

    def replay_us(self):
        begin, end = self.submit()
        self.stream.synchronize()
        return begin.elapsed_time(end) * 1e3

    def times_us(self):
        return [begin.elapsed_time(end) * 1e3 / self.calls for begin, end in self.events]


def by_turns(contestants):
    """Microseconds of a call, for each replay of each contestant by name. One runs at a time."""
    for turn in range(max(contestant.replays for contestant in contestants.values())):
        for contestant in contestants.values():
            if turn < contestant.replays:
                contestant.events.append(contestant.submit())
                contestant.stream.synchronize()
    return {name: contestant.times_us() for name, contestant in contestants.items()}
