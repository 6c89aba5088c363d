"""Runs an export's `predict.py` as its user would: `predict.py EXPORT ARGUMENT..`.

Of what it needs, safetensors lies in an environment of its own, beside libtorch's.
"""

import os
import pathlib
import runpy
import sys

TOOLS = pathlib.Path(os.environ["LOCKSTEP_CACHE"]) / "test-tools"
sys.path += map(str, TOOLS.glob("lib/python3*/site-packages"))
export, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(str(pathlib.Path(export) / "predict.py"), run_name="__main__")
