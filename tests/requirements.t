#!/bin/sh
# requirements.t: every test that docs/REQUIREMENTS.md names exists, and every line of docs/SEMANTICS.md has one.
set -u
build=${RAPT_BUILD:-build}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
grep -o '`[a-z_0-9]*: [^`]*`' docs/REQUIREMENTS.md | tr -d '`' | sort -u > "$folder/references"

# The names of a program's tests: its own --list, or for scripts and programs without one the words of its source. A program that
# would list them but is not built goes to $folder/unbuilt.
names() {
    : > "$folder/unbuilt"
    for source in tests/*/"$1".c tests/*/"$1".t; do
        [ -f "$source" ] || continue
        binary=$build/${source%.c}
        if grep -q 'run_group(\|run_on_devices(\|"--list"' "$source"; then
            if [ -x "$binary" ]; then "$binary" --list 2> /dev/null; else echo "$binary" > "$folder/unbuilt"; fi
        else
            grep -o 'cmocka_unit_test[a-z_]*([a-z_0-9]*' "$source" | sed 's/.*(//'
            grep -o '"[^"]*"' "$source" | tr -d '"'
        fi
    done
}

failed=0
count=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; failed=1; fi
}

for program in $(sed 's/:.*//' "$folder/references" | sort -u); do
    names "$program" > "$folder/names"
    if [ -s "$folder/unbuilt" ]; then
        ! true; say $? "$(cat "$folder/unbuilt") is not built: this test asks it for its tests (make check-build)"
        continue
    fi
    sed -n "s/^$program: //p" "$folder/references" | while read -r pattern; do
        regex=$(printf '%s\n' "$pattern" | sed 's/[][\.^$+?(){}|]/\\&/g; s/\*/.*/g')
        grep -qxE -- "$regex" "$folder/names" || echo "$pattern"
    done > "$folder/missing"
    [ ! -s "$folder/missing" ]; say $? "the tests of $program exist"
    sed 's/^/# there is no test /' "$folder/missing"
done

grep -o '\*\*S[0-9]*\*\*' docs/SEMANTICS.md | tr -d '*' | sort > "$folder/lines"
grep '^| S[0-9]* |.*`' docs/REQUIREMENTS.md | sed 's/^| \(S[0-9]*\) .*/\1/' | sort > "$folder/rows"
cmp -s "$folder/lines" "$folder/rows" && [ -s "$folder/lines" ]; say $? "each line of SEMANTICS.md has one row"
diff "$folder/lines" "$folder/rows" | sed 's/^/# /'
echo "1..$count"
exit $failed
