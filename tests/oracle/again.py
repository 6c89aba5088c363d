"""Runs Python programs, each in a forked process in which these packages are already imported, because importing takes seconds.

    again.py PACKAGE..

Each line of standard input is a JSON list of the arguments of `python`: a file, or `-m` and a module, and its arguments. For each
line, it prints one line of JSON: the exit code, standard output (decoded as Latin-1, since it may contain any bytes) and standard
error. Variables that a program sets before it imports a package have no effect here.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile


def start(program):
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


def outcome(program):
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(said.fileno(), 2)
            start(program)
            sys.exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = {}
        for name, file, encoding in (("printed", printed, "latin-1"), ("said", said, "utf-8")):
            file.seek(0)
            texts[name] = file.read().decode(encoding)
        return {"code": code, **texts}


for package in sys.argv[1:]:
    importlib.import_module(package)
for line in sys.stdin:
    print(json.dumps(outcome(json.loads(line))), flush=True)
