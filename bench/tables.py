"""tables.py: writes the tables of docs/PERFORMANCE.md, each between its <!-- bench: NAME --> and <!-- end -->, from the rows in
bench/results (tables_cpu.py, tables_gpu.py)."""
import argparse
import csv
import math
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RESULTS = os.path.join(ROOT, "bench", "results")
PAGE = os.environ.get("RAPT_TABLES_PAGE") or os.path.join(ROOT, "docs", "PERFORMANCE.md")  # another page: for tests/tables.t


def load(name):
    path = os.path.join(RESULTS, name)
    return list(csv.DictReader(open(path, newline=""))) if os.path.exists(path) else []


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    import tables_cpu
    import tables_gpu
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a table differs from the rows, or where the page "
                        "has a table without its end or an edit's mark (@@NAME@@) left over")
    options = parser.parse_args()
    made = {**tables_cpu.tables(), **tables_gpu.tables()}
    text = open(PAGE).read()
    unknown = set(re.findall(r"<!-- bench: ([a-z0-9-]+) -->", text)) - set(made)
    if unknown:
        sys.exit(f"{PAGE}: no such table: {', '.join(sorted(unknown))}")

    broken = re.findall(r"@@\w*@*", text)
    if text.count("<!-- bench: ") != text.count("<!-- end -->"):
        broken.append("a table without its end")
    if broken:
        sys.exit(f"docs/PERFORMANCE.md: left over: {', '.join(broken)}")

    def fill(match):
        return f"<!-- bench: {match.group(1)} -->\n" + "\n".join(made[match.group(1)]) + "\n<!-- end -->"

    new = re.sub(r"<!-- bench: ([a-z0-9-]+) -->\n.*?<!-- end -->", fill, text, flags=re.S)
    if not options.check:
        with open(PAGE + ".new", "w") as file:
            file.write(new)
        os.replace(PAGE + ".new", PAGE)
    elif new != text:
        sys.exit("docs/PERFORMANCE.md: a table differs from bench/results (python3 bench/tables.py writes it)")


if __name__ == "__main__":
    main()
