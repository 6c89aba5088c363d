"""Runs programs of Python, each in a process of its own that has these packages already: loading them takes seconds.

    again.py PACKAGE..

For each line of standard input, a JSON list of what would stand behind `python` (a file, or `-m` and a module, and its
arguments), it prints one line of JSON: the exit code, what the program prints (as Latin-1: it may be bytes of any kind) and
what it says on standard error. What a program sets before it loads a package comes too late here.
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
