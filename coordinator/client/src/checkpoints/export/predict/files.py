# Readers of raw files. Each returns inputs, and targets or None, in the form that the model takes.


BLANKS = " \t\n\r\f"  # stripped from both ends of a cell, as in training


def table(path):
    columns = INPUTS["columns"]
    target = TARGETS["classes"]["column"] if "classes" in TARGETS else TARGETS["standardised"]["column"]
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = whole_rows(path, file)
        header = [cell.strip(BLANKS) for cell in rows.pop(0)[1]] if rows else []
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
        for line, row in rows:
            if len(row) != len(header):
                refuse(f"`{path}`, line {line}: {len(row)} cells where the header has {len(header)}")
            values.append([number(path, line, header[place], row[place]) for place in places])
    if not values:
        refuse(f"`{path}` holds no rows")
    values = numpy.array(values, dtype=numpy.float64)
    inputs = standardised(path, values[:, : len(names)], columns)
    if not known:
        return inputs, None
    if "classes" in TARGETS:
        return inputs, classes(path, values[:, -1])
    return inputs, standardised(path, values[:, -1:], [TARGETS["standardised"]])


def whole_rows(path, file):
    """The rows that are not empty, each with the number of its last line. A quoted cell that is not closed would hide the end marker."""
    end = ["the end"]
    reader = csv.reader(itertools.chain(file, end))
    rows = [(reader.line_num, row) for row in reader if row]
    if rows.pop()[1] != end:
        refuse(f"`{path}`: the last quoted cell is not closed: the file is truncated")
    return rows


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
    """Standardise in 64 bits, then round to 32 bits, as in training."""
    means = numpy.array([column["mean"] for column in columns], dtype=numpy.float64)
    deviations = numpy.array([column["deviation"] for column in columns], dtype=numpy.float64)
    for place, column in enumerate(columns):
        other = values[values[:, place] != column["mean"], place] if column["constant"] else []
        if len(other) and not numpy.isclose(other, column["mean"], rtol=1e-15, atol=0).all():
            note(f"column `{column['column']}` was always {column['mean']} in training: the model has not learned what {other[0]} means")
    with numpy.errstate(over="ignore"):
        result = ((values - means) / deviations).astype(numpy.float32)
    for place in numpy.argwhere(~numpy.isfinite(result))[:1]:
        refuse(f"`{path}`: {values[tuple(place)]} of column `{columns[place[1]]['column']}` is too far from its mean for 32 bits")
    return torch.from_numpy(result)


def idx(path):
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            refuse(f"`{path}` is not a whole gzip file: {error}")
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 4:
        refuse(f"`{path}` is not an IDX file of bytes")
    sizes = [int(size) for size in numpy.frombuffer(data, ">u4", data[3], 4)]
    start = 4 + 4 * data[3]
    if len(data) != start + math.prod(sizes):
        refuse(f"`{path}` has {len(data)} bytes where its header asks for {start + math.prod(sizes)}")
    return numpy.frombuffer(data, numpy.uint8, offset=start).reshape(sizes)


def classes(path, values):
    """Class numbers as a tensor, checked as in training."""
    # Only its scores show how many classes a TorchScript module has.
    count = math.inf if MODEL["kind"] == "torchscript" else MODEL["outputs"]
    known = "a whole number from 0 on" if count == math.inf else f"a class from 0 to {count - 1}"
    for place in numpy.argwhere(~((values == numpy.floor(values)) & (values >= 0) & (values < count)))[:1, 0]:
        refuse(f"`{path}`, sample {place}: `{values[place]}` is not {known}")
    return torch.from_numpy(values.astype(numpy.int64))


def images_and_labels():
    images = idx(ASKED.file)
    # Gray images have one channel, which the format leaves out.
    images = images[:, None] if images.ndim == 3 else images
    return array(ASKED.file, images), None if ASKED.targets is None else labels(ASKED.targets, idx(ASKED.targets))


def array(path, values):
    """Inputs from an array: pixels are scaled to -1 to 1, numbers stay as they are."""
    shape = INPUTS["pixels" if "pixels" in INPUTS else "values"]["shape"]
    kind = numpy.uint8 if "pixels" in INPUTS else numpy.float32
    if list(values.shape[1:]) != shape or values.dtype != kind:
        refuse(f"`{path}` has samples of {values.dtype} {list(values.shape[1:])}; the model takes {numpy.dtype(kind)} {shape}")
    inputs = torch.from_numpy(numpy.array(values))
    if "pixels" not in INPUTS:
        return inputs
    return inputs.float().div_(INPUTS["pixels"]["divisor"]).sub_(INPUTS["pixels"]["subtracted"])


def labels(path, values):
    """Targets from an array: class numbers, or 32-bit floats."""
    width = 1 if "classes" in TARGETS else TARGETS["values"]["count"]
    if values.ndim == 0 or values.size != len(values) * width:
        refuse(f"`{path}` has targets of {values.dtype} {list(values.shape)}; the model takes {width} a sample")
    if "classes" in TARGETS:
        found = classes(path, values.reshape(len(values)))
        # A module that computes its own loss gets targets in the file's shape, as in training.
        return found.reshape(values.shape) if MODEL.get("output") == "loss" else found
    return torch.from_numpy(values.reshape(len(values), width).astype(numpy.float32))


def npy(path):
    try:
        values = numpy.load(path, allow_pickle=False)
    except (EOFError, ValueError):
        values = None
    if not isinstance(values, numpy.ndarray) or values.dtype.kind not in "biuf":
        refuse(f"`{path}` is not an npy array of numbers")
    return values


def arrays():
    return array(ASKED.file, npy(ASKED.file)), None if ASKED.targets is None else labels(ASKED.targets, npy(ASKED.targets))


def tensors():
    try:
        opened = safetensors.safe_open(ASKED.file, framework="pt")
    except safetensors.SafetensorError as error:
        refuse(f"`{ASKED.file}` is not a safetensors file: {error}")
    with opened as file:
        names = JOB["data"]["inputs"], JOB["data"]["targets"]
        if names[0] not in file.keys():
            refuse(f"`{ASKED.file}` has no tensor `{names[0]}`")
        inputs = array(ASKED.file, numbers(file, names[0]))
        return inputs, labels(ASKED.file, numbers(file, names[1])) if names[1] in file.keys() else None


def numbers(file, name):
    """A tensor as an array, of a type that numpy knows."""
    try:
        return file.get_tensor(name).numpy()
    except TypeError as error:
        refuse(f"`{ASKED.file}`, tensor `{name}`: {error}")


# Formats by their first bytes.
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
    """The format that the data looks like, if not tokens of `width` bytes. Training rejects these formats, too."""
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
    if width == 1 and len(data) % 2 == 0 and ((high < 16).all() and (low >= 64).any() or alternates(low, high)):
        return "16-bit integers"
    return "text" if width == 2 and (start >= 9).all() and (start < 127).all() else None


def alternates(low, high):
    """Whether bytes look like 16-bit tokens of a large vocabulary, by the same rule as in training."""
    lows, highs = (numpy.bincount(part, minlength=256) for part in (low, high))
    most = [int(numpy.sort(counts)[-8:].sum()) for counts in (lows, highs)]
    unlike = int(numpy.abs(lows - highs).sum()) * 10 >= len(low) * 6
    return len(low) >= 1024 and (lows > 0).sum() >= 64 and unlike and most[1] * 2 >= max(len(low), most[0] * 3)


def token_file(path):
    kind = numpy.dtype({"u8": "<u1", "u16": "<u2"}[INPUTS["tokens"]["dtype"]])
    data = sys.stdin.buffer.read() if str(path) == "-" else pathlib.Path(path).read_bytes()
    looks = None if ASKED.accept_as_is or JOB["data"].get("accept_as_is") else lookalike(data, kind.itemsize)
    if looks is not None:
        refuse(f"`{path}` looks like {looks}, not like {INPUTS['tokens']['dtype']} tokens; pass --accept-as-is to read it as tokens")
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


