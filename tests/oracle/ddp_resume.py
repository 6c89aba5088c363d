"""Measures whether PyTorch DDP resumes with the same bits, on the given numbers of processes.

    ddp_resume.py PROCESSES..

Trains a small network without dropout, shuffling or other random numbers, so that weights and optimizer, which the script saves and
loads, are the whole state. It trains STEPS steps without interruption twice, and once with a stop and a load after HALF of them. It
prints JSON: for each of PROCESSES, the number of bytes of the final weights that differ.

DDP rebuilds its buckets after the first step of each process, in another order than at its start. The first step after a load
therefore adds the gradients of three or more processes in another order. Two numbers have only one sum.
"""

import copy
import json
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS, HALF, BATCH = 40, 20, 16


def start(saved):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if saved:
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
    return model, DistributedDataParallel(model), optimizer


def train(first, last, saved=None):
    model, parallel, optimizer = start(saved)
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
        inputs = torch.randn(BATCH, 64, generator=generator)
        targets = torch.randint(0, 10, (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(inputs), targets).backward()
        optimizer.step()
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def process(rank, processes, directory):
    torch.set_num_threads(1)
    torch._C._set_deterministic_algorithms(True, warn_only=False)  # without loading the compiler
    dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=processes)
    whole = train(0, STEPS)
    again = train(0, STEPS)
    resumed = train(HALF, STEPS, train(0, HALF))
    differ = lambda a, b: sum(int((a[0][key].view(torch.uint8) != b[0][key].view(torch.uint8)).sum()) for key in a[0])
    if rank == 0:
        with open(f"{directory}/found", "w") as file:
            json.dump({"again": differ(whole, again), "resumed": differ(whole, resumed)}, file)
    dist.destroy_process_group()


def on(processes):
    # Forked, because a new process needs seconds to import PyTorch.
    with tempfile.TemporaryDirectory() as directory:
        torch.multiprocessing.start_processes(process, (processes, directory), processes, start_method="fork")
        with open(f"{directory}/found") as file:
            return json.load(file)


if __name__ == "__main__":
    json.dump([on(int(processes)) for processes in sys.argv[1:]], sys.stdout)
