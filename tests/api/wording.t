#!/usr/bin/env python3
"""wording.t: every sentence with which the library refuses a call stands in a test, whole. The sentences are the format strings of
fail(), check_true() and reason in src; a string of the tests holds one if it is that sentence with its numbers and names filled in, or
`*` in their places, with or without the function's name before it. A string that fits several sentences holds the one with most fixed
text."""

import glob
import re
import sys

STRING = r'"(?:[^"\\\n]|\\.)*"'
STRINGS = re.compile(STRING + r"(?:\s*" + STRING + ")*")
TESTS = ("tests/api/*.c", "tests/fake_drivers/test_*.c", "tests/cli/*.t")
# Where a sentence of these files must stand if another file has it in the same words.
PLACES = {"src/pieces.c": "tests/api/refusals_pieces.c", "src/params.c": "tests/api/refusals.c"}
# Not sentences of their own: the definition, and sentences made of others.
GLUE = {"%s", "%s: %s", "%s%s", "%s%s: %s", "cuda: %s", "hip: %s"}
# Said only by a library that no build makes: the reason why no test can hear it.
UNHEARD = {
    "rapt_plan_create: %s needs %s, which is not in this library for %s": "a row is built without its companion",
}


def source(path):
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), file.read(), flags=re.S)
    return re.sub(r"\bPRI[diux]64\b", '"ld"', text)


def joined(strings):
    return "".join(part[1:-1] for part in re.findall(STRING, strings)).replace('\\"', '"')


def arguments(text, start):
    """What stands between the parenthesis before start and its partner."""
    depth, i = 1, start
    while depth:
        if text[i] == '"':
            i = re.compile(STRING).match(text, i).end() - 1
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        i += 1
    return text[start : i - 1]


def sentences():
    """(file, line, format) of every refusal in src."""
    for path in sorted(glob.glob("src/**/*.c", recursive=True)):
        text = source(path)
        for call in re.finditer(r"\b(?:fail|check_true)\(|\bsnprintf\(reason\b", text):
            found = STRINGS.search(arguments(text, call.end()))
            if found and joined(found[0]) not in GLUE:
                yield path, text.count("\n", 0, call.start()) + 1, joined(found[0])
        for found in re.finditer(r"\breturn (" + STRINGS.pattern + ");", text):
            if "refuse" in text[max(0, text.rfind("\n}\n", 0, found.start())) : found.start()]:
                yield path, text.count("\n", 0, found.start()) + 1, joined(found[1])


def fixed_text(sentence):
    sentence = re.sub(r"^(?:%s|rapt_\w+|cuda|hip): ", "", sentence)
    return len(re.sub(r"%[-.*0-9]*(?:ll|l|z)?[a-z]|%%", "", sentence))


def pattern(sentence):
    """What a test may write for it."""
    function = re.match(r"(?:%s|rapt_\w+|cuda|hip): ", sentence)
    words = sentence[function.end() :] if function else sentence
    parts = re.split(r"(%[-.*0-9]*(?:ll|l|z)?[a-z])", words)
    text = "".join(
        (r".*" if p[-1] == "s" else r"[-+\w.*]+") if i % 2 else re.escape(p) for i, p in enumerate(parts)
    )
    return re.compile(r"(?:[\w*%]+: )?" + text)


def main():
    found = list(sentences())
    patterns = {s: pattern(s) for _, _, s in found}
    files = {s: {path for path, _, t in found if t == s} for s in patterns}
    held = {}  # sentence -> files that hold it
    for path in sorted(p for t in TESTS for p in glob.glob(t)):
        for string in set(joined(m[0]) for m in STRINGS.finditer(source(path))):
            fits = [s for s in patterns if patterns[s].fullmatch(string)]
            best = max(map(fixed_text, fits), default=0)
            for s in fits:
                if fixed_text(s) == best:
                    held.setdefault(s, set()).add(path)
    missing = [
        (path, line, s)
        for path, line, s in found
        if s not in UNHEARD
        and (not held.get(s) or (len(files[s]) > 1 and PLACES.get(path, *list(held[s])[:1]) not in held[s]))
    ]
    stale = [s for s in UNHEARD if s not in patterns or s in held]
    missing += [("tests/api/wording.t", 0, f"{s} (unheard, but gone from src or in a test)") for s in stale]
    print("1..1")
    print(f"{'not ok' if missing else 'ok'} 1 - {len(found)} sentences stand in a test")
    for path, line, s in missing:
        print(f"# {path}:{line}: in no {PLACES.get(path, 'test')}: {s}")
    return 1 if missing or len(found) < 100 else 0


sys.exit(main())
