#!/bin/sh
# tables.t: the tables of docs/PERFORMANCE.md are what bench/tables.py makes of the rows in bench/results, and the check of that notices a
# changed figure, a table without its end and an edit's mark left over.
cd "$(dirname "$0")/.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
count=0

expect() { # what, words of the complaint or "" for none; the page is $folder/page
    count=$((count + 1))
    if RAPT_TABLES_PAGE=$folder/page "${PYTHON:-python3}" -B bench/tables.py --check > "$folder/out" 2>&1; then code=0; else code=1; fi
    if [ -z "$2" ] && [ $code = 0 ]; then echo "ok $count - $1"; return; fi
    if [ -n "$2" ] && [ $code = 1 ] && grep -q "$2" "$folder/out"; then echo "ok $count - $1"; return; fi
    echo "not ok $count - $1"
    sed 's/^/# /' "$folder/out"
}

echo 1..7
cp docs/PERFORMANCE.md "$folder/page"; expect "tables and rows agree" ""
sed '/<!-- bench: cpu-peers/,/<!-- end/s/0/1/' docs/PERFORMANCE.md > "$folder/page"
expect "a changed figure" "a table differs"
sed '0,/<!-- end -->/s///' docs/PERFORMANCE.md > "$folder/page"; expect "a table without its end" "a table without its end"
sed 's/^### Few tokens/@@CHUNK@@&/' docs/PERFORMANCE.md > "$folder/page"; expect "a mark of an edit" "left over: @@CHUNK@@"

# Only a call without a word writes the page.
sed '/<!-- bench: cpu-peers/,/<!-- end/s/0/1/' docs/PERFORMANCE.md > "$folder/changed"
for word in --chekc --help ""; do
    count=$((count + 1))
    cp "$folder/changed" "$folder/page"
    # shellcheck disable=SC2086
    RAPT_TABLES_PAGE=$folder/page "${PYTHON:-python3}" -B bench/tables.py $word > "$folder/out" 2>&1
    if [ -n "$word" ]; then want=$folder/changed; else want=docs/PERFORMANCE.md; fi
    if cmp -s "$folder/page" "$want" && [ ! -e "$folder/page.new" ]; then echo "ok $count - tables.py $word"; continue; fi
    echo "not ok $count - tables.py $word"
    sed 's/^/# /' "$folder/out"
done
