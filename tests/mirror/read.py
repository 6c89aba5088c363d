#!/usr/bin/env python3
"""Reads a mirrored run with a tool's own reader: `read.py TOOL WHERE RUN`. Prints JSON `{series: [[step, value], ..]}`.

TensorBoard stores values as 32-bit floats. Distributions are left out.
"""

import glob
import json
import os
import struct
import sys
import urllib.request


def tensorboard(where, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(os.path.join(where, run), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow(where, run):
    from mlflow import MlflowClient

    client = MlflowClient(where)
    experiment = client.get_experiment_by_name("lockstep")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.tags["lockstep.run"] == run, found.data.tags
    history = lambda name: sorted([point.step, point.value] for point in client.get_metric_history(found.info.run_id, name))
    return {name: history(name) for name in found.data.metrics}


def parquet(where, run):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(where)
    out = {}
    for name, part, step, value in zip(*(table[column].to_pylist() for column in ("series", "part", "step", "value"))):
        out.setdefault(name if part is None else f"{name}/{part}", []).append([step, value])
    return out


def wandb(where, run):
    from wandb.proto import wandb_internal_pb2 as messages

    (path,) = glob.glob(os.path.join(where, "wandb", "offline-run-*", "run-*.wandb"))
    out = {}
    for data in records(open(path, "rb").read()):
        record = messages.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for name, text in row.items():
            # Skip images, distributions, and W&B's own fields.
            if not name.startswith("_") and "{" not in text and "/histogram/" not in name:
                out.setdefault(name, []).append([int(float(row["_step"])), float(text)])
    return out


def prometheus(where, run):
    """Metrics of this run, and metrics without a run by their labels, from one scrape; all at step 0."""
    from prometheus_client.parser import text_string_to_metric_families

    out = {}
    for family in text_string_to_metric_families(urllib.request.urlopen(where, timeout=30).read().decode()):
        assert family.type == "gauge" and family.documentation, family
        for sample in family.samples:
            if sample.labels.get("run", run) == run:
                of = [] if "run" in sample.labels else list(sample.labels.values())
                out["/".join([sample.name, *of])] = [[0, sample.value]]
    return out


def records(file):
    """Yields the records of a file in LevelDB's log format, after a head of seven bytes."""
    assert file[:4] == b":W&B"
    at, whole = 7, b""
    while at < len(file):
        if 0x8000 - at % 0x8000 < 7:
            at += 0x8000 - at % 0x8000
            continue
        length, kind = struct.unpack_from("<HB", file, at + 4)
        whole += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


if __name__ == "__main__":
    tool, where, run = sys.argv[1:]
    readers = {"tensorboard": tensorboard, "mlflow": mlflow, "parquet": parquet, "prometheus": prometheus, "wandb": wandb}
    print(json.dumps(readers[tool](where, run)))
