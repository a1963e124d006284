#!/bin/sh
# lint.sh: what no compiler checks: tabs and trailing blanks, line and file length, first-line comments, leftovers of editing, levels
# without a line in the docs, includes that point upwards between the layers.
set -u
bad=0
complain() { printf '%s\n' "$*"; bad=1; }
sources=$(git ls-files '*.c' '*.h' '*.cu' '*.def' | grep -v '^tests/data/')

for f in $sources; do
    [ -f "$f" ] || continue
    grep -nP '\t' "$f" /dev/null | head -3 | grep . && complain "$f: tab"
    grep -nP ' +$' "$f" /dev/null | head -3 | grep . && complain "$f: trailing blank"
    case $f in *.def) limit=160 ;; *) limit=120 ;; esac # the tables are wide
    awk -v f="$f" -v limit=$limit 'length > limit { print f ":" NR ": over " limit " columns"; exit 1 }' "$f" || bad=1
    [ -z "$(tail -c 1 "$f")" ] || complain "$f: no newline at the end"
    case $(head -n 1 "$f") in
    '/*'* | '//'*) ;;
    *) complain "$f: the first line does not say what the file is for" ;;
    esac
done

for f in $sources $(git ls-files '*.py' '*.sh' '*.t' '*.mk' '*.awk' Makefile | grep -v '^tests/data/'); do
    [ -f "$f" ] || continue
    [ "$(wc -l < "$f")" -le 600 ] || complain "$f: over 600 lines"
done

# Placeholders that a script or a hand was to fill, marks of a merge, notes to oneself.
left=$(git grep -nIE '@@[A-Z_]+@|^(<<<<<<<|>>>>>>>) |\b(TODO|FIXME|XXX)\b' -- ':!tests/data' ':!mk/lint.sh' ':!tests/tables.t' ':!bench/tables.py')
[ -z "$left" ] || complain "$left: left over"

# cmocka's skip() counts as failed where prove reads it.
left=$(git grep -nE '\bskip\(\);' -- 'tests/*.c' 'tests/*.h')
[ -z "$left" ] || complain "$left: skip_test(reason) of tests/group.h ends a test that cannot run here"

# The levels of CPUs and the page about them.
rows=$(sed -n 's/^LEVEL(\([^,]*\),.*/\1/p' src/cpu/levels.def)
# shellcheck disable=SC2016 # backquotes of the page
[ "$rows" = "$(sed -n 's/^| `\([a-z0-9_]*\)` .*/\1/p' docs/ADDING_AN_ISA.md)" ] ||
    complain "docs/ADDING_AN_ISA.md: its table has other levels than src/cpu/levels.def"

# Layers: api -> plan -> backend -> kernel; base knows nothing of attention.
arrow() { # files, forbidden include pattern
    for f in $1; do
        grep -nE "#include \"($2)" "$f" /dev/null | grep . && complain "$f: an include that points upwards"
    done
}
arrow "$(git ls-files 'src/base/*')" 'params|plan|backend|cpu/|gpu/'
arrow "$(git ls-files 'src/cpu/*' 'src/gpu/*')" 'plan'
arrow "$(git ls-files 'src/cpu/*')" 'gpu/'
arrow "$(git ls-files 'src/gpu/*')" 'cpu/'
arrow "$(git ls-files 'src/cpu/scalar/*' 'src/cpu/x86/*' 'src/cpu/arm/*')" 'backend|params'
# Of kernels also what their headers include; headers of another architecture need not be here.
# shellcheck disable=SC2046,SC2086 # names without spaces; CC may have arguments
made=$(${CC:-cc} -MM -MG -Iinclude -Isrc $(git ls-files 'src/cpu/scalar/*.c' 'src/cpu/x86/*.c' 'src/cpu/arm/*.c')) ||
    complain "no list of what kernels include"
left=$(echo "$made" | awk '/^[^ ]*:/ { of = $1 } /src\/(backend|params|plan|cpu\/cpu)\.h/ { print of }' | sort -u)
[ -z "$left" ] || complain "$left a header of it includes what is above kernels"

# Shell scripts, where a checker is at hand.
if command -v shellcheck >/dev/null; then shellcheck setup.sh .ci/run mk/*.sh || bad=1; fi
exit $bad
