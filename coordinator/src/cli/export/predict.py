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
import gzip
import json
import math
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent


def refuse(words):
    sys.exit(f"predict.py: {words}")


try:
    MANIFEST = json.loads((HERE / "manifest.json").read_bytes())
except (OSError, ValueError) as error:
    refuse(f"the export's `manifest.json` must lie beside this script, as it was exported: {error}")
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

# libtorch reads these as it is loaded: the run's own, as its manifest has them.
for key, value in MANIFEST["numerics"].items():
    name = key.removeprefix("env.")
    if name != key and value != "(not set)" and not name.startswith("LD_"):
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


def switches():
    """libtorch's switches, as the run set them."""
    repeatable = NUMERICS.get("level", "exact") != "off"
    tf32 = NUMERICS.get("tf32", False)
    torch.set_num_threads(ASKED.threads)
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(repeatable)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if MODEL["kind"] == "torchscript":
        # Graphs are compiled once and not fused: a fused kernel rounds otherwise.
        torch._C._jit_set_profiling_mode(False)
        torch._C._jit_set_profiling_executor(False)
        torch._C._jit_set_texpr_fuser_enabled(False)
        torch._C._set_graph_executor_optimize(False)
        torch._C._jit_override_can_fuse_on_cpu(False)
        torch._C._jit_override_can_fuse_on_gpu(False)


# Raw files. Each reader gives inputs, and targets or None, as the model takes them.


BLANKS = " \t\n\r\f"  # what training cuts off a cell


def table(path):
    columns = INPUTS["columns"]
    target = TARGETS["classes"]["column"] if "classes" in TARGETS else TARGETS["standardised"]["column"]
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        header = [cell.strip(BLANKS) for cell in next(rows, [])]
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            refuse(f"`{path}` has two columns `{twice}`")
        names = [column["column"] for column in columns]
        missing = [name for name in names if name not in header]
        if missing:
            refuse(f"`{path}` has no column `{missing[0]}`; the model takes {', '.join(names)}")
        known = target in header
        places = [header.index(name) for name in names + [target] * known]
        values = []
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                refuse(f"`{path}`, line {rows.line_num}: {len(row)} cells where the header has {len(header)}")
            values.append([number(path, rows.line_num, header[place], row[place]) for place in places])
    if not values:
        refuse(f"`{path}` holds no rows")
    values = numpy.array(values, dtype=numpy.float64)
    inputs = standardised(path, values[:, : len(names)], columns)
    if not known:
        return inputs, None
    if "classes" in TARGETS:
        return inputs, classes(path, values[:, -1])
    return inputs, standardised(path, values[:, -1:], [TARGETS["standardised"]])


def number(path, line, column, cell):
    text = cell.strip(BLANKS)
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        refuse(f"`{path}`, line {line}, column `{column}`: `{text[:40]}` is not a finite number")
    return value


def standardised(path, values, columns):
    """In 64 bits, then rounded to 32, as in training."""
    means = numpy.array([column["mean"] for column in columns], dtype=numpy.float64)
    deviations = numpy.array([column["deviation"] for column in columns], dtype=numpy.float64)
    with numpy.errstate(over="ignore"):
        result = ((values - means) / deviations).astype(numpy.float32)
    for place in numpy.argwhere(~numpy.isfinite(result))[:1]:
        refuse(f"`{path}`: {values[tuple(place)]} of column `{columns[place[1]]['column']}` is too far from its mean for 32 bits")
    return torch.from_numpy(result)


def idx(path):
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 4:
        refuse(f"`{path}` is not an IDX file of bytes")
    sizes = [int(size) for size in numpy.frombuffer(data, ">u4", data[3], 4)]
    start = 4 + 4 * data[3]
    if len(data) != start + math.prod(sizes):
        refuse(f"`{path}` has {len(data)} bytes where its header asks for {start + math.prod(sizes)}")
    return numpy.frombuffer(data, numpy.uint8, offset=start).reshape(sizes)


def classes(path, values):
    """Classes as training takes them."""
    count = TARGETS["classes"]["count"]
    for place in numpy.argwhere((values != numpy.floor(values)) | (values < 0) | (values >= count))[:1, 0]:
        refuse(f"`{path}`, sample {place}: `{values[place]}` is not a class from 0 to {count - 1}")
    return torch.from_numpy(values.astype(numpy.int64))


def images_and_labels():
    images = idx(ASKED.file)
    # Gray images have one channel, which the format leaves out.
    images = images[:, None] if images.ndim == 3 else images
    return array(ASKED.file, images), None if ASKED.targets is None else labels(ASKED.targets, idx(ASKED.targets))


def array(path, values):
    """Inputs of an array: pixels become -1 to 1, numbers stay what they are."""
    shape = INPUTS["pixels" if "pixels" in INPUTS else "values"]["shape"]
    kind = numpy.uint8 if "pixels" in INPUTS else numpy.float32
    if list(values.shape[1:]) != shape or values.dtype != kind:
        refuse(f"`{path}` has samples of {values.dtype} {list(values.shape[1:])}; the model takes {numpy.dtype(kind)} {shape}")
    inputs = torch.from_numpy(numpy.array(values))
    if "pixels" not in INPUTS:
        return inputs
    return inputs.float().div_(INPUTS["pixels"]["divisor"]).sub_(INPUTS["pixels"]["subtracted"])


def labels(path, values):
    """Targets of an array."""
    width = 1 if "classes" in TARGETS else TARGETS["values"]["count"]
    if values.ndim == 0 or values.size != len(values) * width:
        refuse(f"`{path}` has targets of {values.dtype} {list(values.shape)}; the model takes {width} a sample")
    if "classes" in TARGETS:
        return classes(path, values.reshape(len(values)))
    return torch.from_numpy(values.reshape(len(values), width).astype(numpy.float32))


def npy(path):
    try:
        return numpy.load(path, allow_pickle=False)
    except ValueError:
        refuse(f"`{path}` is not an npy array of numbers")


def arrays():
    return array(ASKED.file, npy(ASKED.file)), None if ASKED.targets is None else labels(ASKED.targets, npy(ASKED.targets))


def tensors():
    try:
        opened = safetensors.safe_open(ASKED.file, framework="numpy")
    except safetensors.SafetensorError as error:
        refuse(f"`{ASKED.file}` is not a safetensors file: {error}")
    with opened as file:
        names = JOB["data"]["inputs"], JOB["data"]["targets"]
        if names[0] not in file.keys():
            refuse(f"`{ASKED.file}` has no tensor `{names[0]}`")
        inputs = array(ASKED.file, file.get_tensor(names[0]))
        return inputs, labels(ASKED.file, file.get_tensor(names[1])) if names[1] in file.keys() else None


# Formats by the bytes that they begin with.
MAGIC = {
    b"\x93NUMPY": "an npy array",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd",
    b"\xfd7zXZ\x00": "a file packed by xz",
    b"\x1f\x8b\x08\x00": "a file packed by gzip",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"ARROW1\x00\x00": "an Arrow file",
    b"SQLite format 3\x00": "a SQLite database",
    b"MMIDIDX\x00\x00": "an index of Megatron's",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
}


def lookalike(data, width):
    """What these bytes look like, if not like tokens of so many bytes: of what training refuses, what a user may mix up."""
    for magic, name in MAGIC.items():
        if data.startswith(magic):
            return name
    start = numpy.frombuffer(data[: 1 << 16], numpy.uint8)
    if len(start) < 64 or not start.any():
        return None
    for wider in (8, 4):
        if len(data) % wider == 0 and not start[: len(start) // wider * wider].reshape(-1, wider)[:, 2:].any():
            return f"{8 * wider}-bit integers"
    low, high = start[: len(start) // 2 * 2].reshape(-1, 2).T
    if width == 1 and len(data) % 2 == 0 and (high < 16).all() and (low >= 64).any():
        return "16-bit integers"
    return "text" if width == 2 and (start >= 9).all() and (start < 127).all() else None


def token_file(path):
    kind = numpy.dtype({"u8": "<u1", "u16": "<u2"}[INPUTS["tokens"]["dtype"]])
    data = sys.stdin.buffer.read() if str(path) == "-" else pathlib.Path(path).read_bytes()
    looks = None if ASKED.accept_as_is or JOB["data"].get("accept_as_is") else lookalike(data, kind.itemsize)
    if looks is not None:
        refuse(f"`{path}` looks like {looks}, not like {INPUTS['tokens']['dtype']} tokens; --accept-as-is takes it for tokens")
    if len(data) % kind.itemsize:
        refuse(f"`{path}`: {len(data)} bytes are not a whole number of {INPUTS['tokens']['dtype']} tokens")
    tokens = numpy.frombuffer(data, kind).astype(numpy.int64)
    vocabulary = INPUTS["tokens"]["vocabulary"]
    for place in numpy.argwhere(tokens >= vocabulary)[:1, 0]:
        refuse(f"`{path}`: token {tokens[place]} at position {place} is not below {vocabulary}")
    return torch.from_numpy(tokens)


def windows():
    tokens, window = token_file(ASKED.file), INPUTS["tokens"]["context"] + 1
    count = len(tokens) // window
    if count == 0:
        refuse(f"`{ASKED.file}`: {len(tokens)} tokens do not fill one window of {window}")
    tokens = tokens[: count * window].view(count, window)
    return tokens[:, :-1], tokens[:, 1:].contiguous()


READERS = {"csv": lambda: table(ASKED.file), "idx": images_and_labels, "npy": arrays, "safetensors": tensors, "tokens": windows}


# The built-in models: functions of the tensors' names in `model.safetensors`.


def linear(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def mlp(state, x):
    activation = {"relu": torch.relu, "gelu": functional.gelu, "tanh": torch.tanh}[MODEL.get("activation", "relu")]
    x = x if x.dim() == 2 else x.flatten(1)
    for layer in range(len(MODEL["hidden"]) + 1):
        x = linear(state, f"layers.{layer}", x if layer == 0 else activation(x))
    return x


def batch_norm(state, name, x):
    of = lambda part: state[f"{name}.{part}"]  # noqa: E731
    return functional.batch_norm(x, of("running_mean"), of("running_var"), of("weight"), of("bias"), False, 0.1, 1e-5)


def resnet(state, x):
    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2)

    x = conv("stem.conv", x.unsqueeze(1) if x.dim() == 3 else x)
    x = torch.relu(batch_norm(state, "stem.norm", x))
    for stage in range(3):
        for block in range(MODEL["blocks"]):
            name, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
            y = torch.relu(batch_norm(state, f"{name}.norm1", conv(f"{name}.conv1", x, stride)))
            y = batch_norm(state, f"{name}.norm2", conv(f"{name}.conv2", y))
            if f"{name}.shortcut.conv.weight" in state:
                x = batch_norm(state, f"{name}.shortcut.norm", conv(f"{name}.shortcut.conv", x, stride))
            x = torch.relu(y + x)
    return linear(state, "head", x.mean((2, 3)))


def gpt(state, tokens):
    heads, width = MODEL["heads"], MODEL["width"]

    def norm(name, x):
        return functional.layer_norm(x, [width], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def attention(name, x):
        batch, time, _ = x.shape
        parts = linear(state, f"{name}.qkv", x).chunk(3, 2)
        q, k, v = (part.view(batch, time, heads, width // heads).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, None, 0.0, True)
        return linear(state, f"{name}.output", y.transpose(1, 2).flatten(2, 3))

    x = functional.embedding(tokens, state["tokens.weight"]) + state["positions.weight"][: tokens.shape[1]]
    for layer in range(MODEL["layers"]):
        name = f"blocks.{layer}"
        x = attention(f"{name}.attention", norm(f"{name}.norm1", x)) + x
        hidden = functional.gelu(linear(state, f"{name}.mlp.up", norm(f"{name}.norm2", x)))
        x = linear(state, f"{name}.mlp.down", hidden) + x
    return functional.linear(norm("norm", x).view(-1, width), state["tokens.weight"])


def precision():
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=NUMERICS.get("autocast", "off") == "bf16")


def network():
    """From inputs (and targets, where the module wants them) to what the model answers."""
    put_back = lambda: None  # noqa: E731
    with safetensors.safe_open(HERE / "model.safetensors", framework="numpy") as weights:
        theirs = weights.metadata() or {}
    if [theirs.get(f"lockstep.{key}") for key in ("run", "step")] != [MANIFEST["run"], str(MANIFEST["step"])]:
        refuse("`model.safetensors` and `manifest.json` are not of one checkpoint: export it again")
    if MODEL["kind"] == "torchscript":
        module = torch.jit.load(HERE / "model.pt").eval()
        held = [
            (part, name, tensor, tensor.detach().clone())
            for part in module.modules()
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            if not (tensor.requires_grad and name in part._parameters)
        ]

        def put_back():
            # As after each batch of the run's own evaluation: `forward` may have changed a buffer, or assigned another.
            for part, name, tensor, value in held:
                setattr(part, name, tensor)
                tensor.copy_(value)
    else:
        # Clones begin where the run's own tensors begin: at a multiple of 64 bytes, on which MKL's bits depend.
        state = {name: tensor.clone() for name, tensor in load_file(HERE / "model.safetensors").items()}
        forward = {"mlp": mlp, "resnet": resnet, "gpt": gpt}[MODEL["kind"]]
        module = lambda inputs: forward(state, inputs)  # noqa: E731

    def answer(*inputs):
        with precision():
            answered = module(*inputs)
        put_back()
        return answered

    return answer


# What comes out.


def loss_kind():
    by_data = "cross_entropy" if "classes" in TARGETS or TARGETS == "next_token" else "mse"
    return JOB["batch"].get("loss") or by_data


def losses(scores, targets):
    """The loss of each sample, of each token for tokens."""
    with precision():
        if loss_kind() == "cross_entropy":
            return functional.cross_entropy(scores, targets.reshape(-1), reduction="none")
        return functional.mse_loss(scores.float() if scores.dtype == torch.bfloat16 else scores, targets, reduction="none")


def bits(scores):
    """The bits of a row's elements, in hexadecimal digits."""
    return scores.contiguous().view(torch.uint8).numpy().view(f"<u{scores.element_size()}").tolist()


def units(scores):
    """Outputs of a regression in the units of the training data."""
    if "standardised" in TARGETS:
        return scores.double() * TARGETS["standardised"]["deviation"] + TARGETS["standardised"]["mean"]
    return scores


def header(outputs):
    if ASKED.scores:
        return ["row", *(f"output_{at}" for at in range(outputs))]
    if loss_kind() == "cross_entropy":
        name = (TARGETS.get("classes") or {}).get("column") or "class"
        return ["row", name, "probability", *(f"p_{at}" for at in range(outputs) if ASKED.probabilities)]
    if "standardised" in TARGETS:
        return ["row", TARGETS["standardised"]["column"]]
    return ["row", *(f"value_{at}" for at in range(outputs))]


def lines(scores, first):
    if ASKED.scores:
        width = 2 * scores.element_size()
        for at, row in enumerate(scores):
            yield [first + at, *(f"{element:0{width}x}" for element in bits(row))]
    elif loss_kind() == "cross_entropy":
        for at, row in enumerate(torch.softmax(scores.double(), 1)):
            best = int(scores[at].argmax())
            yield [first + at, best, float(row[best]), *(row.tolist() if ASKED.probabilities else [])]
    else:
        for at, row in enumerate(units(scores)):
            yield [first + at, *row.tolist()]


def predict(answer):
    inputs, targets = READERS[JOB["data"]["kind"]]()
    if len(inputs) == 0:
        refuse(f"`{ASKED.file}` holds no samples")
    if targets is not None and len(targets) != len(inputs):
        refuse(f"there are {len(inputs)} inputs and {len(targets)} targets")
    out = csv.writer(sys.stdout, lineterminator="\n")
    total, right, count, begun = 0.0, 0, 0, False
    for first in range(0, len(inputs), ASKED.batch):
        x = inputs[first : first + ASKED.batch].clone()
        y = None if targets is None else targets[first : first + ASKED.batch].clone()
        if MODEL.get("output", "logits") == "loss":
            if y is None:
                refuse("the module answers a loss: it needs targets, and gives no predictions")
            total, count = total + float(answer(x, y)) * len(x), count + len(x)
            continue
        scores = answer(x)
        if MODEL["kind"] == "torchscript" and loss_kind() == "mse" and scores.dtype == torch.bfloat16:
            scores = scores.float()  # as the run does
        if TARGETS == "next_token":
            of_tokens = losses(scores, y)
            if ASKED.scores:
                out.writerows([first + at, *(f"{element:08x}" for element in bits(row))] for at, row in enumerate(of_tokens.view(len(x), -1)))
        else:
            out.writerows([] if begun else [header(scores.shape[1])])
            out.writerows(lines(scores, first))
            begun = True
        if y is not None:
            values = y.shape[1] if loss_kind() == "mse" else 1
            total += float(losses(scores, y).sum(dtype=torch.float64)) / values
            right += int((scores.argmax(-1) == y.reshape(-1)).sum()) if loss_kind() == "cross_entropy" else 0
            count += y.numel() // values
    if count == 0:
        return
    words = [f"loss {total / count}" + (" (standardised)" if "standardised" in TARGETS else "")]
    if TARGETS == "next_token":
        words.append(f"perplexity {math.exp(total / count)}")
    if loss_kind() == "cross_entropy" and MODEL.get("output", "logits") != "loss":
        words.append(f"accuracy {right / count}")
    words.append(f"{'tokens' if TARGETS == 'next_token' else 'samples'} {count}")
    stream = sys.stdout if TARGETS == "next_token" and not ASKED.scores else sys.stderr
    print(", ".join(words), file=stream)


def go_on(answer):
    """The tokens that follow the file, each drawn from the model's scores."""
    if "tokens" not in INPUTS:
        refuse("--continue is for language models")
    tokens, context = token_file(ASKED.file), INPUTS["tokens"]["context"]
    if len(tokens) == 0:
        refuse(f"`{ASKED.file}` holds no token to continue")
    generator = torch.Generator().manual_seed(ASKED.seed)
    kind = numpy.dtype({"u8": "<u1", "u16": "<u2"}[INPUTS["tokens"]["dtype"]])
    # Scores of tokens that no file of this type can hold are left out, if the vocabulary has such.
    held = min(INPUTS["tokens"]["vocabulary"], 256**kind.itemsize)
    tokens = tokens[-context:]
    for _ in range(ASKED.tokens):
        scores = answer(tokens[None, -context:])[-1, :held].float()
        if ASKED.temperature == 0:
            token = scores.argmax(keepdim=True)
        else:
            token = torch.multinomial(torch.softmax(scores / ASKED.temperature, 0), 1, generator=generator)
        tokens = torch.cat([tokens, token])
        sys.stdout.buffer.write(token.numpy().astype(kind).tobytes())
    sys.stdout.buffer.flush()


def main():
    switches()
    try:
        with torch.no_grad():
            (predict if ASKED.tokens is None else go_on)(network())
    except FileNotFoundError as error:
        refuse(f"`{error.filename}` does not exist")
    except BrokenPipeError:
        # Nobody reads on, as with `| head`. Python would fail once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        refuse(f"cannot read `{error.filename or ASKED.file}`: {error.strerror}")
    except csv.Error as error:
        refuse(f"`{ASKED.file}` is not a table: {error}")


if __name__ == "__main__":
    main()
