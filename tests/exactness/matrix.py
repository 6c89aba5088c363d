#!/usr/bin/env python3
"""`make exactness`: a matrix of models and optimizers against everything that must not change a bit.

Each row trains one job of six ranks on one process as reference. It then trains the job again on one process, on other numbers of
processes, resumed from a middle checkpoint, and with a process killed during training. It compares the digest of the final state, and
for every step the samples, the loss, the gradient norm, the learning rate, and the fingerprint of all tensors at steps that have one.
The exit code is 1 if anything differs.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from local_cluster import Cluster, ClusterError  # noqa: E402

OUT = ROOT / "target" / "exactness"
RANKS = 6
RUN_SECONDS = 180  # limit for one run

# Small jobs with everything that could break reproducibility: dropout, shuffling, a schedule with warm-up, clipping, evaluation.
COMMON = """
ranks = {ranks}
seed = 11
steps = {steps}
batch = {{ size = {batch} }}
optimizer = {optimizer}
schedule = {{ kind = "cosine", warmup_steps = 5 }}
eval = {{ every_steps = {third}, samples = 64 }}
checkpoint = {{ every_steps = {third} }}
report = {{ fingerprints_every = {third} }}
code = {{ allow_dirty = true }}
"""
MODELS = {
    "mlp": (
        900,
        48,
        f"""
model = {{ kind = "mlp", hidden = [256, 256], outputs = 10, dropout = 0.2 }}
data = {{ kind = "csv", path = "{ROOT}/tests/data/digits.csv", target = "label", validation = 0.1 }}
""",
    ),
    "resnet": (
        36,
        24,
        f"""
model = {{ kind = "resnet", blocks = 1, width = 8, outputs = 10 }}
[data]
kind = "idx"
images = "{ROOT}/target/data/fashion-mnist/train-images-idx3-ubyte"
labels = "{ROOT}/target/data/fashion-mnist/train-labels-idx1-ubyte"
validation_images = "{ROOT}/target/data/fashion-mnist/t10k-images-idx3-ubyte"
validation_labels = "{ROOT}/target/data/fashion-mnist/t10k-labels-idx1-ubyte"
""",
    ),
    "gpt": (
        36,
        24,
        f"""
model = {{ kind = "gpt", layers = 2, heads = 4, width = 64, context = 32, dropout = 0.1 }}
data = {{ kind = "tokens", path = "{ROOT}/target/data/kjv.bin", validation = 0.05 }}
""",
    ),
    # Buffers that `forward` assigns, in the module of `modules.py`.
    "assigned": (
        300,
        48,
        f"""
model = {{ kind = "torchscript", path = "{OUT}/assigned.pt" }}
data = {{ kind = "csv", path = "{ROOT}/tests/data/digits.csv", target = "label", validation = 0.1 }}
""",
    ),
}
OPTIMIZERS = {
    "sgd": '{ kind = "sgd", lr = 0.05, momentum = 0.9, clip_norm = 1.0 }',
    "adam": '{ kind = "adam", lr = 1e-3, clip_norm = 1.0 }',
    "adamw": '{ kind = "adamw", lr = 1e-3, weight_decay = 0.1, clip_norm = 1.0 }',
}
# Steps, and numbers of processes: each number in one row at least.
QUICK = {("mlp", "sgd"): (240, (2, 5)), ("gpt", "adamw"): (36, (1, 3, 6)), ("assigned", "adamw"): (120, (2, 4))}
COLUMNS = ["again", *(f"{count} proc." for count in range(2, RANKS + 1)), "resumed", "killed"]


def say(text):
    print(f"exactness: {text}", file=sys.stderr, flush=True)


def job(model, optimizer, steps):
    _, batch, rest = MODELS[model]
    text = COMMON.format(ranks=RANKS, steps=steps, third=steps // 3, batch=batch, optimizer=OPTIMIZERS[optimizer])
    path = OUT / f"{model}-{optimizer}.toml"
    path.write_text(f'name = "{model}-{optimizer}"\n{text}{rest}')
    return path


def start(cluster, path, processes):
    world = f"world={{processes={processes}, min_processes={processes}}}"
    done = subprocess.run(cluster.command("submit", path, "--set", world, "--json"), capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"`coord submit {path}` ended with exit code {done.returncode}:\n{done.stderr}")
    return cluster.newest_run()["run"]


def ended(cluster, run):
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        view = cluster.ask("show", run)
        if view["status"] in ("failed", "cancelled", "unsaved"):
            raise ClusterError(f"run {run} ended as `{view['status']}`: {view['reason']}")
        if view["status"] == "finished":
            return view
        time.sleep(0.05)
    raise ClusterError(f"run {run} did not end within {RUN_SECONDS} s")


def evidence(cluster, run):
    """Waits for the end of a run; returns the digest of its final state, and the recorded bits by step."""
    view = ended(cluster, run)
    keys = ("samples", "loss_bits", "grad_norm_bits", "lr_bits", "fingerprint")
    return view["final_state_digest"], {step["step"]: [step[key] for key in keys] for step in cluster.steps(run)}


def kill_one(cluster, run, step):
    """Sends SIGKILL to one of the run's processes after `step`; False if the run ended first."""
    deadline = time.monotonic() + RUN_SECONDS
    while (view := cluster.ask("show", run))["step"] < step:
        if view["status"] in ("finished", "failed", "cancelled", "unsaved"):
            return False
        if time.monotonic() > deadline:
            raise ClusterError(f"run {run} did not reach step {step} within {RUN_SECONDS} s")
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # the process has ended
        if b"--run" in words and run.encode() in words and b"worker" in words[0]:
            os.kill(int(entry.parent.name), signal.SIGKILL)
            return True
    return False


def row(cluster, model, optimizer, steps, numbers):
    """One cell for each column: the number of compared steps, None if something differs, `-` if it was not run or nothing was killed."""
    path = job(model, optimizer, steps)
    reference = start(cluster, path, 1)
    state, record = evidence(cluster, reference)
    middle = next(made for made in cluster.ask("checkpoints", reference) if made["step"] == steps // 3)

    def same(run, begin=0):
        found, steps_of_it = evidence(cluster, run)
        expected = {step: bits for step, bits in record.items() if step > begin}
        return len(expected) if (found, steps_of_it) == (state, expected) else None

    cells = [same(start(cluster, path, count)) if count in numbers else "-" for count in range(1, RANKS + 1)]
    subprocess.run(cluster.command("resume", middle["id"]), check=True, stdout=subprocess.DEVNULL)
    cells.append(same(cluster.newest_run()["run"], middle["step"]))
    victim = start(cluster, path, 2)
    killed = kill_one(cluster, victim, steps // 2)
    compared = same(victim)
    cells.append(compared if killed or compared is None else "-")
    return cells


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="run three of the twelve rows, with fewer steps and columns")
    all_numbers = range(1, RANKS + 1)
    every = {(model, rule): (MODELS[model][0], all_numbers) for model in MODELS for rule in OPTIMIZERS}
    chosen = QUICK if arguments.parse_args().quick else every
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, pathlib.Path(__file__).with_name("modules.py"), OUT], check=True)
    lines = [f"| {RANKS} ranks | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    steps, runs, differ = 0, 0, 0
    with Cluster(OUT / "cluster", [f"node-{index}" for index in range(RANKS)]) as cluster:
        for (model, optimizer), (count, numbers) in chosen.items():
            say(f"{model}, {optimizer}")
            cells = row(cluster, model, optimizer, count, numbers)
            words = {None: "DIFFERS", "-": "-"}
            lines.append(f"| {model}, {optimizer} | {' | '.join(words.get(cell, 'equal') for cell in cells)} |")
            compared = [cell for cell in cells if isinstance(cell, int)]
            runs, steps, differ = runs + len(compared), steps + sum(compared), differ + cells.count(None)
    print("\n".join(lines))
    say(f"{runs} runs match their reference bit for bit ({steps} steps and {runs} final states); {differ} runs differ")
    return 1 if differ or runs == 0 else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClusterError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
