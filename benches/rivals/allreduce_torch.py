# In-place sums of f32 by torch.distributed with Gloo over TCP on the loopback interface, timed as `plesio bench allreduce`
# times ours.
#
#   for every rank: python3 allreduce_torch.py RANK RANKS EMPTY_FOLDER LARGEST_BYTES
#
# Lines as allreduce_mpi.c prints them, from rank 0.
import os
import sys
import time

os.environ["GLOO_SOCKET_IFNAME"] = "lo"
import torch
import torch.distributed as dist

me, ranks, folder, largest = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=me, world_size=ranks)


def value(rank, at, turn):
    return (1 + (at * 5 + rank * 3 + turn) % 7).float()


def runs_of(size):
    return 101 if size <= 65536 else 31 if size <= 1 << 20 else 9 if size <= 16 << 20 else 5


for size in (1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20):
    if size > largest:
        break
    at = torch.arange(size // 4, dtype=torch.int32)
    times, wrong = [], 0
    runs = runs_of(size)
    for run in range(-2, runs):
        tensor = value(me, at, run + 2)
        dist.barrier()
        begin = time.perf_counter_ns()
        dist.all_reduce(tensor)
        took = torch.tensor([time.perf_counter_ns() - begin], dtype=torch.float64)
        dist.all_reduce(took, op=dist.ReduceOp.MAX)
        if run >= 0:
            times.append(took.item())
        if run in (0, runs - 1):
            for rank in range(ranks):
                tensor -= value(rank, at, run + 2)
            wrong += int(tensor.count_nonzero())
    total = torch.tensor([wrong])
    dist.all_reduce(total)
    times.sort()
    if me == 0:
        print(ranks, size, f"{times[runs // 2]:.0f}", f"{times[0]:.0f}", total.item(), flush=True)
dist.barrier()
dist.destroy_process_group()
