#!/usr/bin/env python3
"""Predict with the exported model beside this file. Needs torch, numpy and safetensors, and nothing else.

    predict.py TABLE.csv                    tables: the columns are found by their names
    predict.py IMAGES [LABELS]              IDX files, plain or gzipped
    predict.py INPUTS.npy [TARGETS.npy]     npy arrays
    predict.py FILE.safetensors             the tensors that the job names
    predict.py TOKENS.bin                   language models: loss and perplexity of the file
    predict.py TOKENS.bin --continue 200    language models: 200 tokens that continue the file, as raw tokens

The file has raw values, like the training data: this script applies the preprocessing. It prints predictions as CSV on standard
output, one line per sample, in the units of the training data. If the file has targets, it prints loss and accuracy on standard
error. With the batch size, threads and processor of the run, all scores match those of the run's evaluation bit for bit;
--scores prints their bits.
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


# SHA-256 of the other exported files, by name.
EXPORTED = {}


def exported(name):
    """The path of an exported file, after its digest is verified."""
    found = hashlib.sha256()
    try:
        with open(HERE / name, "rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except OSError as error:
        refuse(f"cannot read `{name}`, which must be beside this script: {error}")
    if found.hexdigest() != EXPORTED[name]:
        refuse(f"`{name}` was changed after the export, or belongs to another export: run `coord export` again")
    return HERE / name


MANIFEST = json.loads(exported("manifest.json").read_bytes())
JOB = json.loads(MANIFEST["job_text"])
INPUTS = MANIFEST["preprocessing"]["inputs"]
TARGETS = MANIFEST["preprocessing"]["targets"]
NUMERICS = JOB.get("numerics", {})
MODEL = JOB["model"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="read samples from this file; with --continue, `-` is standard input")
    parser.add_argument("targets", type=pathlib.Path, nargs="?", help="read labels or targets from this file, if it is a separate one")
    micro_batch = max(1, JOB["batch"]["size"] // JOB.get("ranks", 1))
    parser.add_argument("--batch", type=int, default=micro_batch, help="score BATCH samples at once [default: %(default)s, as in the run]")
    threads = NUMERICS.get("threads", 1)
    parser.add_argument("--threads", type=int, default=threads, help="compute with THREADS threads [default: %(default)s, as in the run]")
    parser.add_argument("--scores", action="store_true", help="print the bits of the model's outputs instead of predictions")
    parser.add_argument("--probabilities", action="store_true", help="print the probability of every class")
    parser.add_argument("--continue", dest="tokens", type=int, metavar="N", help="print N tokens that continue the file (language models)")
    parser.add_argument("--seed", type=int, default=0, help="seed the random choice of tokens [default: 0]")
    parser.add_argument("--accept-as-is", action="store_true", help="accept a token file that looks like another format")
    parser.add_argument("--temperature", type=float, default=1.0, help="choose tokens at this temperature; 0: the likeliest [default: 1.0]")
    parsed = parser.parse_args()
    if parsed.batch < 1 or parsed.threads < 1 or (parsed.tokens or 0) < 0 or parsed.temperature < 0:
        parser.error("--batch and --threads must be at least 1, --continue and --temperature at least 0")
    return parsed


ASKED = arguments()

# libtorch reads these variables when it is loaded: they are set as in the run. Manifests of builds up to 0.1.0 lack some of oneDNN's.
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
    refuse(f"{error}; install the packages: {sys.executable} -m pip install torch numpy safetensors")

OF_RUN = MANIFEST["numerics"].get("torch.version", torch.__version__)
if torch.__version__.split("+")[0] != OF_RUN.split("+")[0]:
    note(f"the run used torch {OF_RUN}, and this is torch {torch.__version__}: bits of scores may differ")
try:
    about = [line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line]
except OSError:
    about = []
about = {key.strip(): value.strip() for key, value in about}
if "model name" in about and "cpu.model" in MANIFEST["numerics"]:
    processor = f"{about['model name']}, family {about.get('cpu family', '?')}, model {about.get('model', '?')}"
    if processor != MANIFEST["numerics"]["cpu.model"]:
        note(f"the run used the processor `{MANIFEST['numerics']['cpu.model']}`, and this is `{processor}`: bits of scores may differ")


def switches():
    """Set libtorch's switches as in the run."""
    repeatable = NUMERICS.get("level", "exact") != "off"
    tf32 = NUMERICS.get("tf32", False)
    torch.set_num_threads(ASKED.threads)
    torch.set_num_interop_threads(1)
    # Not `torch.use_deterministic_algorithms`: it also loads the compiler, which takes as long as everything else here.
    torch._C._set_deterministic_algorithms(repeatable, warn_only=False)
    # As in the run, for modules that use uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = MODEL["kind"] == "torchscript"
    torch.manual_seed(0)  # a module that draws random numbers in evaluation repeats its own outputs, not those of the run
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if MODEL["kind"] == "torchscript":
        # Graphs are compiled once and not fused: a fused kernel rounds differently.
        torch._C._jit_set_profiling_mode(False)
        torch._C._jit_set_profiling_executor(False)
        torch._C._jit_set_texpr_fuser_enabled(False)
        torch._C._set_graph_executor_optimize(False)
        torch._C._jit_override_can_fuse_on_cpu(False)
        torch._C._jit_override_can_fuse_on_gpu(False)


