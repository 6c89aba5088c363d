"""Writes a run that comes as lines of JSON into an offline run of Weights & Biases.

The first line is the run, the last one how it ended; between them each is a step, in ascending order.
"""

import base64
import glob
import html
import json
import os
import shutil
import sys
import tempfile

import wandb

LONGEST_TAG = 64


def row(step, images):
    """All of a step under one name each, as the package wants it."""
    values = {name: float(value) for name, value in step["values"].items()}
    for name, (counts, edges) in step["histograms"].items():
        values[name] = wandb.Histogram(np_histogram=(counts, edges))
    for name, text in step["texts"].items():
        values[name] = wandb.Html("<pre>%s</pre>" % html.escape(text))
    for name, png in step["images"].items():
        # As a file, which the package copies as it is.
        with tempfile.NamedTemporaryFile(dir=images, suffix=".png", delete=False) as file:
            file.write(base64.b64decode(png))
        values[name] = wandb.Image(file.name)
    values["_timestamp"] = step["at_ms"] / 1000
    return values


def export(about, images):
    os.makedirs(about["dir"], exist_ok=True)
    below = os.path.join(about["dir"], "wandb")
    if os.path.islink(below):
        # The package writes there, and an earlier export is removed there.
        sys.exit("`%s` is a symbolic link: remove it, or name another directory" % below)
    earlier = glob.glob(os.path.join(glob.escape(about["dir"]), "wandb", "offline-run-*-" + glob.escape(about["id"])))
    tags = ["%s=%s" % tag for tag in about["tags"].items()]
    run = wandb.init(
        dir=about["dir"],
        project=about["project"],
        id=about["id"],
        name=about["name"],
        notes=about["tags"].get("note"),
        tags=[tag for tag in tags if len(tag) <= LONGEST_TAG],
        config={**about["parameters"], "lockstep": {"tags": about["tags"], "datasets": about["datasets"]}},
        settings=wandb.Settings(console="off", disable_git=True, save_code=False, x_disable_stats=True),
    )
    for line in sys.stdin:
        step = json.loads(line)
        if "step" in step:
            run.log(row(step, images), step=step["step"])
    # The last line.
    run.summary["status"] = step["status"]
    if "final_state" in about["tags"]:
        run.summary["final_state"] = about["tags"]["final_state"]
    if step["artifacts"]:
        artifact = wandb.Artifact("run-%s-files" % about["id"], type="lockstep")
        for name, path in step["artifacts"].items():
            artifact.add_file(path, name=name)
        run.log_artifact(artifact)
    here = os.path.realpath(os.path.dirname(run.dir))
    run.finish(exit_code=int(step["status"] in ("failed", "cancelled")))
    for path in earlier:
        if os.path.realpath(path) != here and not os.path.islink(path):
            shutil.rmtree(path)


try:
    with tempfile.TemporaryDirectory() as images:
        export(json.loads(sys.stdin.readline()), images)
except Exception as error:
    sys.exit("%s: %s" % (type(error).__name__, error))
