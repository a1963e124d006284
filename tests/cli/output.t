#!/usr/bin/env python3
"""output.t: which files `rapt run` and `rapt map` write to, and what is left where one cannot be written."""

import os
import resource
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support import *

tap = Tap()
here = folder()
os.chmod(here, 0o777)
shape = [1, 4, 2, 8]
given = write_file(os.path.join(here, "given"), {key: random_tensor("F32", shape, 1) for key in "qkv"})
os.chmod(given, 0o644)
target = os.path.join(here, "target")


def tried(command, mode, prepare):
    """Code and error of a run whose process is prepared, and what the target and its folder hold after it."""
    if os.path.exists(target):
        os.remove(target)
    with open(target, "w") as file:
        file.write("precious")
    os.chmod(target, mode)
    done = subprocess.run([RAPT, command, given, "-o", target], capture_output=True, text=True, preexec_fn=prepare)
    with open(target, "rb") as file:
        return done.returncode, done.stderr, file.read(8), sorted(os.listdir(here))


def small_files():
    """The kernel's signal past 64 bytes, which ends a program that does not mind it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def nobody():
    if os.getuid() == 0:
        os.setuid(65534)


for command in ("run", "map"):
    refused(tap, rapt(command, given, "-o", "-"), f"{command} -o -", "-o -: results do not go to the standard output")
    try:
        code, error, held, names = tried(command, 0o444, nobody)
        tap.ok(
            code == 2 and "may not be written: Permission denied" in error and held == b"precious" and len(names) == 2,
            f"{command}: a file without the right to write is not replaced",
            code, error, names,
        )
    except PermissionError as reason:
        tap.ok(True, f"{command}: a file without the right to write # SKIP nobody cannot start rapt: {reason}")
    code, error, held, names = tried(command, 0o600, small_files)
    tap.ok(
        code == -signal.SIGXFSZ and held == b"precious" and len(names) == 2,
        f"{command}: a file that grows past its limit leaves the old one and nothing beside it",
        code, error, names,
    )
tap.ok(not os.path.exists("-"), "no file is named -")
tap.plan()
