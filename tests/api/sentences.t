#!/usr/bin/env python3
"""sentences.t: each error sentence of the library's sources is met by a test of tests/api or tests/fake_drivers.

Those programs check status and words of every refusal; here they run once more with RAPT_SENTENCES set, under which
tests/record notes the format of each sentence that fail() is given."""
import glob
import os
import re
import subprocess
import sys
import tempfile

BUILD = os.environ.get("RAPT_BUILD", "build")
LITERAL = r'"(?:\\.|[^"\\])*"'
PROGRAMS = sorted(glob.glob("tests/api/*.c") + glob.glob("tests/fake_drivers/test_*.c"))
PROGRAMS.remove("tests/api/memory.c")  # of much memory, and of no refusals
# A sentence against a wrong table of kernels, which the table in the sources cannot be.
GUARDS = {
    "rapt_plan_create: %s needs %s, which is not in this library for %s",
}


def plain(text):
    """A format with one spelling for all widths of integers, as compiled code has lost the macros' names."""
    return re.sub(r"%(?:ll|l|z|h)?([diux])", r"%\1", text.replace('\\"', '"'))


def written():
    """The format of each fail() in the sources: {plain format: file}."""
    found = {}
    for path in sorted(glob.glob("src/**/*.c", recursive=True)):
        text = re.sub(r"\bPRI([du])64\b", r'"l\1"', open(path).read())
        text = re.sub(r'"\s*"', "", text)
        for pattern in (r"\bfail\(\s*[^,;]+,\s*(%s)", r"\bcheck_true\([^;\"]*?(%s)"):
            for call in re.finditer(pattern % LITERAL, text):
                found[plain(call.group(1)[1:-1])] = path
    found.pop("%s: %s")  # of check_true, whose rules stand for it
    return found


def met():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "met")
        for program in PROGRAMS:
            binary = os.path.join(BUILD, program[:-2])
            if os.path.exists(binary):
                subprocess.run([binary], env=dict(os.environ, RAPT_SENTENCES=path), check=False,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {plain(line.rstrip("\n")) for line in open(path)}


def main():
    sources, seen = written(), met()
    assert GUARDS <= set(sources), "an exempt sentence is gone: take it off the list"
    print(f"1..{len(sources)}")
    failed = False
    for number, (sentence, path) in enumerate(sources.items(), 1):
        good = sentence in seen or sentence in GUARDS
        failed |= not good
        print(f"{'ok' if good else 'not ok'} {number} - {path}: {sentence.replace('#', '')}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
