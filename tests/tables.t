#!/bin/sh
# tables.t: the tables of docs/PERFORMANCE.md are what bench/tables.py makes of the rows in bench/results.
echo 1..1
if "${PYTHON:-python3}" -B "$(dirname "$0")/../bench/tables.py" --check > /dev/null 2>&1; then echo "ok 1 - tables and rows agree"
else echo "not ok 1 - tables and rows differ (python3 bench/tables.py writes them)"; exit 1; fi
