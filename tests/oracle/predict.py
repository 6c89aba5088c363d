"""Runs an export's `predict.py` as its user would.

    predict.py EXPORT ARGUMENT..    once
    predict.py --each EXPORT        once for each line of standard input, a JSON list of arguments: one line of JSON each, with the
                                    exit code and what it says. Torch is loaded once, before the script sets variables for it: for
                                    what is refused, not for bits.

Of what it needs, safetensors lies in an environment of its own, beside libtorch's.
"""

import json
import os
import pathlib
import runpy
import sys
import tempfile

TOOLS = pathlib.Path(os.environ["LOCKSTEP_CACHE"]) / "test-tools"
sys.path += map(str, TOOLS.glob("lib/python3*/site-packages"))


def run(export, arguments):
    sys.argv[1:] = arguments
    runpy.run_path(str(pathlib.Path(export) / "predict.py"), run_name="__main__")


def outcome(export, arguments):
    """Of a process of its own, which has all modules already."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run(export, arguments)
            sys.exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return {"code": code, "said": said.read().decode()}


if sys.argv[1] == "--each":
    import numpy  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401

    for line in sys.stdin.read().splitlines():
        print(json.dumps(outcome(sys.argv[2], json.loads(line))), flush=True)
else:
    run(sys.argv[1], sys.argv[2:])
