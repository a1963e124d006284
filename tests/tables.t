#!/bin/sh
# tables.t: the tables of docs/PERFORMANCE.md and docs/performance are what bench/tables.py makes of the rows in bench/results, each on one
# page; and the check of that names the page with a changed figure, an unknown table, one without its end, an edit's mark left over.
cd "$(dirname "$0")/.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
count=0
zen4=performance/cpu-zen4.md

fresh() { rm -rf "$folder/docs" && mkdir "$folder/docs" && cp -r docs/PERFORMANCE.md docs/performance "$folder/docs"; }
change() { # page, arguments of sed
    page=$folder/docs/$1; shift
    sed "$@" "$page" > "$folder/edited" && ! cmp -s "$folder/edited" "$page" && mv "$folder/edited" "$page"
}
tables() { RAPT_TABLES_DOCS=$folder/docs "${PYTHON:-python3}" -B bench/tables.py "$@" > "$folder/out" 2>&1; }
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; sed 's/^/# /' "$folder/out"; fi
}
expect() { # what, the complaint, a page and arguments of sed that change it; nothing is written either
    what=$1 words=$2; shift 2
    fresh && change "$@" && cp -r "$folder/docs" "$folder/before"
    if ! tables --check && grep -qxF -- "$words" "$folder/out"; then code=0; else code=1; fi
    case $words in *"a table differs"*) ;; *) tables && code=1 ;; esac
    diff -r "$folder/docs" "$folder/before" >> "$folder/out" || code=1
    rm -rf "$folder/before"
    say $code "$what"
}

echo 1..14
fresh; tables --check; say $? "tables and rows agree"
differs="a table differs from bench/results (python3 bench/tables.py writes it)"
expect "a changed figure on the first page" "docs/PERFORMANCE.md: $differs" PERFORMANCE.md '/<!-- bench: cpu-peers/,/<!-- end/s/0/1/'
expect "a changed figure on another" "docs/$zen4: $differs" $zen4 '/<!-- bench: cpu-few/,/<!-- end/s/0/1/'
expect "a table without its end" "docs/PERFORMANCE.md: a table without its end" PERFORMANCE.md '0,/<!-- end -->/s///'
expect "an end without its table" "docs/$zen4: a table without its end" $zen4 's/^## Decode/<!-- end -->&/'
expect "a mark that is none" "docs/$zen4: a comment that is no mark of a table" $zen4 's/<!-- bench: cpu-few/<!-- bnech: cpu-few/'
expect "an unknown table" "docs/$zen4: no such table: cpu-fwe" $zen4 's/<!-- bench: cpu-few/<!-- bench: cpu-fwe/'
expect "a table on no page" "no page has the table cpu-few" $zen4 '/<!-- bench: cpu-few/,/<!-- end/d'
expect "a table on two pages" "docs/PERFORMANCE.md, docs/$zen4: the table cpu-peers stands 2 times" $zen4 's/^## Peers/<!-- bench: cpu-peers -->\n<!-- end -->\n&/'
expect "a mark of an edit" "docs/$zen4: left over: @@CHUNK@@" $zen4 's/^## 16 tokens/@@CHUNK@@&/'
expect "a mark of an edit on the first page" "docs/PERFORMANCE.md: left over: @@CHUNK@@" PERFORMANCE.md 's/^### Decode/@@CHUNK@@&/'

# Only a call without a word writes the pages.
for word in --chekc --help ""; do
    fresh
    change PERFORMANCE.md '/<!-- bench: cpu-peers/,/<!-- end/s/0/1/'
    change $zen4 '/<!-- bench: cpu-few/,/<!-- end/s/0/1/'
    cp -r "$folder/docs" "$folder/before"
    if [ -z "$word" ]; then mkdir "$folder/want" && cp -r docs/PERFORMANCE.md docs/performance "$folder/want"; else cp -r "$folder/before" "$folder/want"; fi
    # shellcheck disable=SC2086
    tables $word
    diff -r "$folder/docs" "$folder/want" >> "$folder/out"; say $? "tables.py $word"
    rm -rf "$folder/before" "$folder/want"
done
