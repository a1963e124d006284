"""tables.py: writes the tables of docs/PERFORMANCE.md and docs/performance/*.md, each between its <!-- bench: NAME --> and <!-- end -->,
from the rows in bench/results (tables_cpu.py, tables_gpu.py). Each table stands on one of these pages, once."""
import argparse
import csv
import glob
import math
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RESULTS = os.path.join(ROOT, "bench", "results")
DOCS = os.environ.get("RAPT_TABLES_DOCS") or os.path.join(ROOT, "docs")  # another folder: for tests/tables.t


def load(name):
    path = os.path.join(RESULTS, name)
    return list(csv.DictReader(open(path, newline=""))) if os.path.exists(path) else []


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def faults(pages, made):
    """What is wrong with the pages' marks, a sentence each."""
    places, wrong = {}, []
    for page, text in pages.items():
        marks = re.findall(r"<!-- (bench:.*?|end) -->", text)
        for mark in marks[::2]:
            places.setdefault(mark.removeprefix("bench: "), []).append(page)
        if "end" in marks[::2] or set(marks[1::2]) - {"end"} or len(marks) % 2:
            wrong.append(f"{page}: a table without its end")
        if len(marks) != text.count("<!--"):
            wrong.append(f"{page}: a comment that is no mark of a table")
        wrong += [f"{page}: left over: {mark}" for mark in re.findall(r"@@\w*@*", text)]
    wrong += [f"{page}: no such table: {name}" for name, on in places.items() if name not in made for page in on]
    wrong += [f"{', '.join(on)}: the table {name} stands {len(on)} times" for name, on in places.items() if len(on) > 1]
    return wrong + [f"no page has the table {name}" for name in made if name not in places]


def main():
    import tables_cpu
    import tables_gpu
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a table differs from the rows. With and without it "
                        "also where a table is on no page or on two, or a page has an unknown one, one without its end or an edit's mark (@@NAME@@)")
    options = parser.parse_args()
    made = {**tables_cpu.tables(), **tables_gpu.tables()}
    paths = [os.path.join(DOCS, "PERFORMANCE.md")] + sorted(glob.glob(os.path.join(DOCS, "performance", "*.md")))
    pages = {os.path.join("docs", os.path.relpath(path, DOCS)): open(path).read() for path in paths}
    wrong = faults(pages, made)
    if wrong:
        sys.exit("\n".join(wrong))

    def fill(match):
        return f"<!-- bench: {match.group(1)} -->\n" + "\n".join(made[match.group(1)]) + "\n<!-- end -->"

    new = {page: re.sub(r"<!-- bench: (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.S) for page, text in pages.items()}
    changed = [page for page in pages if new[page] != pages[page]]
    if options.check and changed:
        sys.exit("\n".join(f"{page}: a table differs from bench/results (python3 bench/tables.py writes it)" for page in changed))
    for path, page in zip(paths, pages):
        if page in changed:
            with open(path + ".new", "w") as file:
                file.write(new[page])
            os.replace(path + ".new", path)


if __name__ == "__main__":
    main()
