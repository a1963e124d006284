#!/usr/bin/env python3
"""verify.t: `rapt run --verify` knows what a GPU may do with subnormal numbers of f16. The stand-in driver computes nothing: all results
are 0, as those of subnormal values are where matrix units take these for 0."""

import os
import sys

sys.path.insert(0, os.path.join("tests", "cli"))
import support
from support import *

build = os.environ.get("RAPT_BUILD", "build")
support.RAPT = os.path.join(build, "tests", "fake_drivers", "rapt")
tap = Tap()
here = folder()


def run(arch, value):
    """One query of 0, so that the one key has weight 1 and a log-sum-exp of 0."""
    zeros, row = Tensor("F16", [1, 1, 1, 64], [0.0] * 64), Tensor("F16", [1, 1, 1, 64], [value] * 64)
    file = write_file(os.path.join(here, "i.safetensors"), {"q": zeros, "k": zeros, "v": row})
    driver = os.path.join(build, "tests", "fake_drivers", "libamdhip64.so")
    return rapt("run", file, "--device", "hip:0", "--verify", environment={"FAKE_ARCH": arch, "RAPT_HIP_LIBRARY": driver})


SUBNORMAL, NORMAL = 2.0**-15, 2.0**-14
for arch, value, word, code in (
    ("gfx90a", SUBNORMAL, "right", 0),
    ("gfx90a", NORMAL, "WRONG", 1),
    ("gfx942", SUBNORMAL, "WRONG", 1),
):
    result = run(arch, value)
    tap.ok(result.code == code and word in result.out, f"{arch}, values of {value}: {word}", result.out, result.error)
tap.plan()
