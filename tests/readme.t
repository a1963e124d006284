#!/bin/sh
# readme.t: what README.md says to type works: its C program, its commands; its pictures are pictures. Every link of every
# page leads to a file and a heading, the docs name files that exist, the manual page every option; examples are short.
set -u
build=${RAPT_BUILD:-build}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
count=0
failed=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; sed 's/^/# /' "$folder/log"; failed=1; fi
}

sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' > "$folder/program.c"
sed -n 's/^After `make`: `cc \([^`]*\)`.*/\1/p' README.md |
    sed "s|program.c|$folder/program.c -o $folder/program|; s|-Lbuild|-L$build|; s|\$PWD/build|$build|" > "$folder/arguments"
# shellcheck disable=SC2086,SC2046
eval "${CC:-cc} -Wall -Wextra -Wpedantic -Werror ${LDFLAGS:-} $(cat "$folder/arguments")" 2> "$folder/log" &&
    "$folder/program" > "$folder/printed" 2>> "$folder/log" && [ "$(cat "$folder/printed")" = 1 ]
say $? "the program compiles as it says and prints 1"
[ "$(grep -c '[^ ]' "$folder/program.c")" -le 25 ]; say $? "the program is short"

# Pages on standard input. Headings become anchors as GitHub makes them; what stands in code is neither heading nor link.
links() {
    # shellcheck disable=SC2016 # fields of awk
    xargs awk '
        function real(path,    n, i, parts, kept, depth) { # without . and ..
            n = split(path, parts, "/"); depth = 0; path = ""
            for (i = 1; i <= n; i++)
                if (parts[i] == ".." && depth && kept[depth] != "..") depth--
                else if (parts[i] != "." && (parts[i] != "" || i == 1)) kept[++depth] = parts[i]
            for (i = 1; i <= depth; i++) path = path (i > 1 ? "/" : "") kept[i]
            return path == "" ? "." : path
        }
        FNR == 1 { code = 0; folder = FILENAME; if (!sub(/\/[^\/]*$/, "", folder)) folder = "." }
        /^ *```/ { code = !code; next }
        code { next }
        /^#+ / {
            line = tolower($0); sub(/^#+ +/, "", line); gsub(/\]\([^)]*\)/, "", line); gsub(/[^a-z0-9 _-]/, "", line); gsub(/ /, "-", line)
            seen = times[FILENAME, line]++; print "anchor", real(FILENAME) "#" line (seen ? "-" seen : "")
        }
        {
            line = $0; gsub(/`[^`]*`/, "", line)
            while (match(line, /\]\([^)]*\)/)) {
                to = substr(line, RSTART + 2, RLENGTH - 3); line = substr(line, RSTART + RLENGTH)
                if (to ~ /^[a-z]+:/) continue
                anchor = ""; if (match(to, /#/)) { anchor = substr(to, RSTART); to = substr(to, 1, RSTART - 1) }
                print "link", FILENAME, to == "" ? real(FILENAME) : real(folder "/" to), anchor
            }
        }' > "$folder/links"
    grep '^anchor ' "$folder/links" | sort -u > "$folder/anchors"
    grep '^link ' "$folder/links" | while read -r _ page path anchor; do
        [ -e "$path" ] || echo "$page: there is no $path"
        [ -z "$anchor" ] || echo "anchor $path$anchor $page"
    done > "$folder/wanted"
    grep -v '^anchor ' "$folder/wanted"
    grep '^anchor ' "$folder/wanted" | awk 'NR == FNR { known[$2] = 1; next } !($2 in known) { print $3 ": there is no " $2 }' "$folder/anchors" -
}
pages() { git ls-files -co --exclude-standard '*.md' 2> /dev/null | grep . || find . -name '*.md' ! -path './build/*'; }
pages | sort -u | links > "$folder/log"
[ ! -s "$folder/log" ] && [ "$(wc -l < "$folder/anchors")" -gt 100 ]; say $? "every link of every page leads to a file and a heading"
printf '# A page\n## A *b*, `c_d`: (e)\n## Twice\n## Twice\n[a](page.md#a-page) [b](#a-b-c_d-e) [c](#twice-1) `[d](none.md)`\n[e](other.md) [f](#twice-2)\n```\n# No\n```\n[g](#no)' \
    > "$folder/page.md"
echo "$folder/page.md" | links > "$folder/log"
printf '%s: there is no %s\n' "$folder/page.md" "$folder/other.md" "$folder/page.md" "$folder/page.md#twice-2" "$folder/page.md" "$folder/page.md#no" > "$folder/want"
cmp "$folder/log" "$folder/want" >> "$folder/log" 2>&1; say $? "a link to no file and one to no heading are found"
sed -n 's/^!\[[^]]*\](\([^)]*\)).*/\1/p' README.md > "$folder/pictures"
while read -r file; do
    [ "$(dd if="$file" bs=1 skip=1 count=3 2> /dev/null)" = PNG ] || echo "$file is no picture"
done < "$folder/pictures" > "$folder/log"
[ -s "$folder/pictures" ] && [ ! -s "$folder/log" ]; say $? "the pictures are pictures"
grep '^    ./setup.sh' README.md | awk '{ print $2 }' | while read -r word; do grep -q "^$word)" setup.sh || echo "$word"; done > "$folder/log"
[ ! -s "$folder/log" ]; say $? "setup.sh knows the words"

# NAME and the like stand for any name; a program is named without its .c.
grep -ohE '`(src|tests|tools|mk|docs|bench|examples|include)/[^` ,:]*`' README.md docs/*.md docs/*/*.md | tr -d '`' | sort -u |
    while read -r path; do
        pattern=$(printf '%s\n' "$path" | sed 's/NAME/*/g')
        # shellcheck disable=SC2086
        ls -d $pattern > /dev/null 2>&1 || [ -e "$path.c" ] || echo "there is no $path"
    done > "$folder/log"
[ ! -s "$folder/log" ]; say $? "the docs name files that exist"
grep -rohIE '\<docs/[A-Za-z0-9_/-]+\.md' include src examples tools tests bench docs mk Makefile setup.sh | sort -u | while read -r path; do
    [ -e "$path" ] || echo "there is no $path"
done > "$folder/log"
[ ! -s "$folder/log" ]; say $? "the sources name pages that exist"
wc -l examples/*.c | awk '$2 != "total" && $1 > 100' > "$folder/log"
[ ! -s "$folder/log" ]; say $? "no example is over 100 lines"

# The means that README names first are those that bench/tables.py wrote into PERFORMANCE.md, of the H100.
sed -n '/^<!-- bench: peers -->$/,/^<!-- end -->$/p' docs/PERFORMANCE.md > "$folder/h100"
mean() { # row of the table of peers, name of its column, a printf format, the protocol if not interleaved
    column=$(grep '^| problems | protocol |' "$folder/h100" | tr '|' '\n' | grep -nx " $2 " | cut -d : -f 1)
    value=$(grep "^| $1 | ${4:-interleaved} |" "$folder/h100" | cut -d '|' -f "${column:-1}" | sed 's/^ *\([0-9.]*\) .*/\1/')
    # shellcheck disable=SC2059
    printf "$3" "${value:-0}"
}
efficient=$(mean 'grid, f32' memory-efficient %s)
while read -r line; do
    grep -qF -- "$line" README.md || echo "README.md does not say: $line"
done > "$folder/log" <<END
$(mean 'grid, bf16' FlashAttention-3 %s) times as fast as FlashAttention-3 and $(mean 'grid, bf16' cuDNN %s) times as cuDNN, in f32 $efficient times
bf16 $(mean 'grid, bf16' FlashAttention-3 %s sustained) and $(mean 'grid, bf16' cuDNN %s sustained) times
36 shapes, 512 to 16k tokens | cuDNN 9.19 | $(mean 'grid, bf16' cuDNN %s)x (none slower); sustained $(mean 'grid, bf16' cuDNN %s sustained)x
the same 36 shapes | FlashAttention-3 | $(mean 'grid, bf16' FlashAttention-3 %s)x (none slower); sustained $(mean 'grid, bf16' FlashAttention-3 %s sustained)x
the same 36 shapes | FlashAttention-2 of PyTorch 2.11 | $(mean 'grid, bf16' FlashAttention-2 %s)x
28 shapes of four models | cuDNN 9.19; FlashAttention-3 | $(mean 'models, bf16' cuDNN %s)x; $(mean 'models, bf16' FlashAttention-3 %s)x
24 shapes | memory-efficient attention of PyTorch 2.11 | ${efficient}x
END
[ ! -s "$folder/log" ]; say $? "the first figures are those of the tables"

# The block of the tool's commands, on a smaller problem.
sed -n 's|^    build/rapt ||p' README.md > "$folder/commands"
if [ -x "$build/rapt" ]; then
    for command in run map bench check info explain; do "$build/rapt" $command --help; done | grep -oE -- '--[a-z][a-z-]*' | sort -u |
        grep -vxE -- '--(help|usage|version)' | while read -r option; do
            grep -qF -- "$(printf '%s' "$option" | sed 's/-/\\-/g')" docs/rapt.1 || echo "$option is not in docs/rapt.1"
        done > "$folder/log"
    [ ! -s "$folder/log" ]; say $? "the manual page has every option"
    while read -r line; do
        line=$(printf '%s\n' "$line" | sed "s|map.png|$folder/map.png|; s|q4096 kv4096|q64 kv64|")
        eval "\"$build/rapt\" $line" > "$folder/log" 2>&1
        say $? "rapt $(printf '%s' "$line" | cut -d ' ' -f 1)"
    done < "$folder/commands"
fi
echo "1..$count"
exit $failed
