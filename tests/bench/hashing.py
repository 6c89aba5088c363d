#!/usr/bin/env python3
"""Speed of data hashing, beside `b3sum` and `md5sum`: one file of 4 GB, and 50,000 small files.

    python3 tests/bench/hashing.py [--rounds 3]

`make bench` runs it; `scripts/setup.sh --bench` installs b3sum. All programs take turns within each round.

Warm: the files are in the page cache, as just after they were written. Cold: the page cache is dropped before, which needs root;
this measures the disk, too. Known: nothing has changed since the last time, so no file is read, as at every submit but the first.
`xargs` passes the small files to `b3sum` and `md5sum`, and runs as many of these as there are cores.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from measure import ClusterError
from report import BIN, OUT, alternate, medians, say, spread, table

CACHE = pathlib.Path(os.environ.get("LOCKSTEP_CACHE", pathlib.Path.home() / ".cache/lockstep"))
B3SUM = CACHE / "bench-tools" / "bin" / "b3sum"
DROP_CACHES = pathlib.Path("/proc/sys/vm/drop_caches")
LARGE = 4 << 30
SMALL = 50_000
SMALL_BYTES = 8 << 10


def make(folder):
    """Writes the large file and the folder of small files, with random contents, and returns both paths."""
    large, small = folder / "large", folder / "small"
    small.mkdir(parents=True)
    block = os.urandom(64 << 20)
    with open(large, "wb") as file:
        for number in range(LARGE // len(block)):
            file.write(number.to_bytes(8, "little") + block[8:])
    for number in range(SMALL):
        directory = small / f"{number // 1000:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"{number:05}").write_bytes(number.to_bytes(8, "little") + block[number : number + SMALL_BYTES - 8])
    os.sync()
    return large, small


def seconds(command, cold=False):
    if cold:
        os.sync()
        DROP_CACHES.write_text("3")
    environment = os.environ | {"XDG_CACHE_HOME": str(OUT / "hashing-cache")}
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.monotonic() - begin


def measures(path, cold):
    """Functions that measure one pass over `path`, in seconds, by name."""
    each = ["sh", "-c", f'find "$0" -type f -print0 | xargs -0 -n 2000 -P {os.cpu_count()} "$1"', path]
    many = path.is_dir()
    ours = [BIN / "coord", "data", "hash", path]
    found = {
        "ours": lambda: seconds([*ours, "--rehash"], cold),
        "b3sum": lambda: seconds([*each, B3SUM] if many else [B3SUM, path], cold),
        "md5sum": lambda: seconds([*each, "md5sum"] if many else ["md5sum", path], cold),
    }
    return found if cold else found | {"known": lambda: seconds(ours)}


def submit(job):
    """Seconds until `coord submit` has printed the id of the run; there is no worker, so the run waits."""
    begin = time.monotonic()
    environment = os.environ | {"XDG_CACHE_HOME": str(OUT / "hashing-cache"), "LOCKSTEP_ADDR": job[1]}
    subprocess.run([BIN / "coord", "submit", job[0]], check=True, capture_output=True, env=environment)
    return time.monotonic() - begin


JOB = 'name = "known"\nsteps = 1\nranks = 1\nbatch = { size = 1 }\noptimizer = { kind = "sgd", lr = 0.1 }\n'


def job_on_file(folder, large):
    """A job on the large file, outside of any git work tree."""
    job = folder / "large.toml"
    model = 'model = { kind = "gpt", layers = 1, heads = 1, width = 8, context = 8, vocabulary = 256 }\n'
    job.write_text(JOB + model + f'data = {{ kind = "tokens", path = "{large}", dtype = "u8" }}\n')
    return job


def job_on_directory(folder, small):
    """A job on all small files. Only a user's program can read them, and a program needs a git work tree."""
    tree = folder / "tree"
    tree.mkdir()
    job = tree / "job.toml"
    job.write_text(JOB + f'program = {{ bin = "none" }}\ndata = {{ kind = "files", paths = ["{small}"] }}\n')
    git = ["git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "a job"]):
        subprocess.run([*git, *command], check=True)
    return job


def submits(job, folder, rounds):
    """Seconds of each submit after the first, when the job's data is known."""
    serve = [BIN / "coord", "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / f"coord-{job.stem}"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as coordinator:
        try:
            address = next(line.split()[-1] for line in coordinator.stderr if "listening on" in line)
            submit((job, address))
            return [submit((job, address)) for _ in range(rounds)]
        finally:
            coordinator.terminate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if not B3SUM.exists():
        sys.exit(f"bench: error: `{B3SUM}` does not exist; run `scripts/setup.sh --bench` to install b3sum")
    folder = OUT / "hashing"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(OUT / "hashing-cache", ignore_errors=True)
    try:
        large, small = make(folder)
        time.sleep(3)  # younger files never count as known
        rows, raw = [], {}
        for name, path, gigabytes in (("one file of 4 GB", large, LARGE / 1e9), ("50,000 files of 8 KB", small, SMALL * SMALL_BYTES / 1e9)):
            seconds([BIN / "coord", "data", "hash", path])
            for cold in (False, True):
                if cold and not os.access(DROP_CACHES, os.W_OK):
                    say("skipping cold measurements: dropping the page cache needs root")
                    continue
                what = f"{name}, {'cold' if cold else 'warm'}"
                say(f"{what}: {rounds} rounds")
                found = raw[what] = alternate(rounds, measures(path, cold))
                median = medians(found)
                rates = [f"{gigabytes / median[side]:.2f}" for side in ("ours", "b3sum", "md5sum")]
                ratios = [spread(found[side], found["ours"]) for side in ("b3sum", "md5sum")]
                known = f"{median['known']:.3f}" if "known" in median else ""
                rows.append([what, *rates, *ratios, known])
        print(table(["", "ours, GB/s", "b3sum", "md5sum", "ours/b3sum", "ours/md5sum", "known, s"], rows))
        with tempfile.TemporaryDirectory() as outside:
            outside = pathlib.Path(outside)
            print()
            for what, job in (("4 GB file", job_on_file(outside, large)), ("50,000 files", job_on_directory(outside, small))):
                ordered = sorted(submits(job, outside, 10))
                raw[f"submit, {what}"] = ordered
                middle = ordered[len(ordered) // 2]
                print(f"submit of a job on the {what}, known: {middle:.3f} s [{ordered[0]:.3f}, {ordered[-1]:.3f}]")
        (OUT / "hashing.json").write_text(json.dumps(raw))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: error: {error}")
