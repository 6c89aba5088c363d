#!/usr/bin/env python3
"""Predicts with the exported model that lies beside this file. Needs torch, numpy and safetensors, and nothing else.

    predict.py TABLE.csv                    tables: the columns are found by their names
    predict.py IMAGES [LABELS]              IDX files, plain or gzipped
    predict.py INPUTS.npy [TARGETS.npy]     npy arrays
    predict.py FILE.safetensors             the tensors that the job names
    predict.py TOKENS.bin                   language models: loss and perplexity of the file
    predict.py TOKENS.bin --continue 200    language models: 200 tokens that continue the file, as raw tokens

The file holds raw values, as the file that the model was trained on: the preprocessing is applied here. Predictions go to
standard output as CSV, one line a sample, in the units of the training data; where the file has targets, loss and accuracy
go to standard error. With the batch size, the threads and the processor of the run, every score has the bits that the run's
own evaluation computes: --scores prints them.
"""

import argparse
import csv
import errno
import gzip
import hashlib
import itertools
import json
import math
import os
import pathlib
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent


def refuse(words):
    sys.exit(f"predict.py: {words}")


def note(words):
    print(f"predict.py: note: {words}", file=sys.stderr)


# SHA-256 of what was exported with this script.
EXPORTED = {}


def exported(name):
    """A file of the export, which is what it was."""
    found = hashlib.sha256()
    try:
        with open(HERE / name, "rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except OSError as error:
        refuse(f"the export's `{name}` must lie beside this script, as it was exported: {error}")
    if found.hexdigest() != EXPORTED[name]:
        refuse(f"`{name}` is not what was exported with this script: it was changed, or is of another export; export it again")
    return HERE / name


MANIFEST = json.loads(exported("manifest.json").read_bytes())
JOB = json.loads(MANIFEST["job_text"])
INPUTS = MANIFEST["preprocessing"]["inputs"]
TARGETS = MANIFEST["preprocessing"]["targets"]
NUMERICS = JOB.get("numerics", {})
MODEL = JOB["model"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="what to predict from; `-` with --continue: standard input")
    parser.add_argument("targets", type=pathlib.Path, nargs="?", help="labels or targets, where they are in a file of their own")
    micro_batch = max(1, JOB["batch"]["size"] // JOB.get("ranks", 1))
    parser.add_argument("--batch", type=int, default=micro_batch, help="samples computed at once [default: %(default)s, as the run]")
    threads = NUMERICS.get("threads", 1)
    parser.add_argument("--threads", type=int, default=threads, help="threads of libtorch [default: %(default)s, as the run]")
    parser.add_argument("--scores", action="store_true", help="print the bits of the model's outputs instead of predictions")
    parser.add_argument("--probabilities", action="store_true", help="classes: print the probability of every class")
    parser.add_argument("--continue", dest="tokens", type=int, metavar="N", help="language models: print N tokens more")
    parser.add_argument("--seed", type=int, default=0, help="of the continuation [default: 0]")
    parser.add_argument("--accept-as-is", action="store_true", help="token files: whatever they look like, these are tokens")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the continuation; 0: always the likeliest token")
    parsed = parser.parse_args()
    if parsed.batch < 1 or parsed.threads < 1 or (parsed.tokens or 0) < 0 or parsed.temperature < 0:
        parser.error("--batch and --threads are at least 1, --continue and --temperature at least 0")
    return parsed


ASKED = arguments()

# libtorch reads these as it is loaded: the run's own, as its manifest has them. Builds up to 0.1.0 did not ask for all of oneDNN's.
for name in [name for name in os.environ if name.startswith(("DNNL_", "MKLDNN_", "ONEDNN_"))]:
    os.environ.pop(name)
for key, value in MANIFEST["numerics"].items():
    name = key.removeprefix("env.")
    if name == key or name.startswith("LD_"):
        continue
    os.environ.pop(name, None)
    if value != "(not set)":
        os.environ[name] = value
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(ASKED.threads)

try:
    import numpy  # noqa: E402
    import safetensors  # noqa: E402
    import torch  # noqa: E402
    from safetensors.torch import load_file  # noqa: E402
    from torch.nn import functional  # noqa: E402
except ImportError as error:
    refuse(f"{error}; it needs three packages: {sys.executable} -m pip install torch numpy safetensors")

OF_RUN = MANIFEST["numerics"].get("torch.version", torch.__version__)
if torch.__version__.split("+")[0] != OF_RUN.split("+")[0]:
    note(f"the run was made with torch {OF_RUN}, and this is {torch.__version__}: scores may have other bits")
try:
    about = [line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line]
except OSError:
    about = []
about = {key.strip(): value.strip() for key, value in about}
if "model name" in about and "cpu.model" in MANIFEST["numerics"]:
    processor = f"{about['model name']}, family {about.get('cpu family', '?')}, model {about.get('model', '?')}"
    if processor != MANIFEST["numerics"]["cpu.model"]:
        note(f"the run was made on `{MANIFEST['numerics']['cpu.model']}`, and this is `{processor}`: scores may have other bits")


def switches():
    """libtorch's switches, as the run set them."""
    repeatable = NUMERICS.get("level", "exact") != "off"
    tf32 = NUMERICS.get("tf32", False)
    torch.set_num_threads(ASKED.threads)
    torch.set_num_interop_threads(1)
    # `torch.use_deterministic_algorithms` loads the compiler, too, which takes as long as all else.
    torch._C._set_deterministic_algorithms(repeatable, warn_only=False)
    # As the run does for modules that take memory as it is.
    torch.utils.deterministic.fill_uninitialized_memory = MODEL["kind"] == "torchscript"
    torch.manual_seed(0)  # a module that draws in evaluation repeats itself, though not the run
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if MODEL["kind"] == "torchscript":
        # Graphs are compiled once and not fused: a fused kernel rounds otherwise.
        torch._C._jit_set_profiling_mode(False)
        torch._C._jit_set_profiling_executor(False)
        torch._C._jit_set_texpr_fuser_enabled(False)
        torch._C._set_graph_executor_optimize(False)
        torch._C._jit_override_can_fuse_on_cpu(False)
        torch._C._jit_override_can_fuse_on_gpu(False)


