"""Trains the model of `jobs/checkpoint.toml` in PyTorch, saves through `torch.distributed.checkpoint` (DCP), and prints JSON.

    python3 tests/bench/dcp.py FOLDER [--turn N]

One process with one thread trains windows of 20 steps: one window without a save, and one for each of DCP's ways that begins with a
save. Each way has saved once before its window, so that memory that it keeps between saves already exists. The training thread is
held by the call, and by the wait before the next optimizer step changes the state. Durable is the time from the call until the
save has ended.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import time

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

import ddp

WIDTH, LAYERS, OUTPUTS, BATCH, LR = 2048, 10, 1536, 32, 1e-4
WARMUP, WINDOW = 4, 20
WAYS = ["save", "async_save", "stager", "thread"]


def network():
    layers, inputs = [], 512
    for _ in range(LAYERS):
        layers += [nn.Linear(inputs, WIDTH), nn.ReLU()]
        inputs = WIDTH
    return nn.Sequential(*layers, nn.Linear(inputs, OUTPUTS))


class Training:
    """A model in training, and a function to call just before its optimizer's next step."""

    def __init__(self):
        self.images, self.classes = ddp.fashion_512()
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)
        self.index, self.before_update = 0, None

    def step(self):
        """Trains one step and returns the seconds that it waited for a save."""
        begin = self.index % (len(self.images) // BATCH) * BATCH
        self.index += 1
        self.optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(self.model(self.images[begin : begin + BATCH]), self.classes[begin : begin + BATCH]).backward()
        held = 0.0
        if self.before_update is not None:
            began = time.perf_counter()
            self.before_update()
            held, self.before_update = time.perf_counter() - began, None
        self.optimizer.step()
        return held

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class Saver:
    """One of DCP's ways: `save`, `async_save`, or `async_save` with a reused stager, which copies at once (`stager`) or on
    a thread of its own (`thread`)."""

    def __init__(self, way, folder):
        self.way, self.folder, self.stager = way, folder, None
        if way in ("stager", "thread"):
            # The stager's other options need a GPU.
            own = StagingOptions(use_pinned_memory=False, use_async_staging=way == "thread", use_non_blocking_copy=False)
            self.stager = DefaultStager(own)

    def begin(self, training):
        """Begins a save and returns the seconds that it holds the training thread."""
        began = time.perf_counter()
        upload = None
        if self.way == "save":
            dcp.save(training.state(), checkpoint_id=self.folder, no_dist=True)
        else:
            upload = dcp.async_save(training.state(), checkpoint_id=self.folder, no_dist=True, async_stager=self.stager)
            if self.way == "thread":
                training.before_update, upload = upload.staging_completion.result, upload.upload_completion
        held = time.perf_counter() - began
        self.began, self.upload, self.ended = began, upload, [began + held]
        if upload is not None:
            self.ended = []
            upload.add_done_callback(lambda _: self.ended.append(time.perf_counter()))
        return held

    def durable(self):
        """Waits for the save and returns the seconds since it began."""
        if self.upload is not None:
            self.upload.result()
            while not self.ended:
                time.sleep(0.001)
        shutil.rmtree(self.folder)
        return self.ended[0] - self.began

    def close(self):
        if self.stager is not None:
            self.stager.close()


def window(training, saver=None):
    """Trains a window and returns its seconds, and those of them that a save at its beginning holds."""
    began = time.perf_counter()
    held = saver.begin(training) if saver else 0.0
    for _ in range(WINDOW):
        held += training.step()
    return time.perf_counter() - began, held


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--turn", type=int, default=0, help="index of the way that comes first")
    arguments = arguments.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = Training()
    for _ in range(WARMUP):
        training.step()
    steps = []
    for _ in range(WINDOW):
        began = time.perf_counter()
        training.step()
        steps.append(time.perf_counter() - began)
    tensors = [*training.model.state_dict().values()]
    tensors += [moment for state in training.optimizer.state.values() for moment in state.values()]
    line = {"bytes": sum(tensor.nbytes for tensor in tensors), "step_s": statistics.median(steps), "ways": {}}
    turn = arguments.turn % len(WAYS)
    for way in WAYS[turn:] + WAYS[:turn]:
        saver = Saver(way, arguments.folder / way)
        first = saver.begin(training)
        first += training.step()
        saver.durable()
        seconds, held = window(training, saver)
        line["ways"][way] = {"first_s": first, "held_s": held, "lost_s": seconds - sum(steps), "durable_s": saver.durable()}
        saver.close()
    print(json.dumps(line))


if __name__ == "__main__":
    main()
