#!/bin/sh
# loops.t: the check of the figures of AMD's loops (mk/loops.awk) passes what keeps its limits and fails each planted excess with a
# sentence that names the row.
count=0
awk=$(dirname "$0")/../mk/loops.awk
row='| mfma_f16_d128 | gfx942 | 232 | 104 | 32 | 2 | 64 | 58.0 % | 75.0 % | 75.0 % | 1.9 % |'

expect()   # what, the table's rows, the words of the failure or "" to pass
{
    count=$((count + 1))
    if text=$(printf '| row | target |\n|---|---|\n%s\n' "$2" | awk -f "$awk" 2>&1); then code=0; else code=1; fi
    if [ -z "$3" ] && [ $code = 0 ]; then echo "ok $count - $1"; return; fi
    if [ -n "$3" ] && [ $code = 1 ] && echo "$text" | grep -q "$3"; then echo "ok $count - $1"; return; fi
    echo "not ok $count - $1"
    echo "$text" | sed 's/^/# /'
}

changed() { echo "$row" | sed "s/$1/$2/"; }

echo 1..10
expect "what keeps the limits" "$row" ""
expect "a small share by the emulator" "$(changed '| 75.0 % | 75' '| 74.9 % | 75')" "mfma_f16_d128_gfx942: .* 74.9 % of the loop's issue cycles"
expect "a small share by llvm-mca" "$(changed '75.0 % | 1.9' '74.9 % | 1.9')" "74.9 % of the loop's cycles by llvm-mca"
expect "a share that is small but for tiles that share the keys" "$row
$(changed 'd128 ' 'd128_split ' | sed 's/75.0 %/60.0 %/g')" ""
expect "a small share of tiles that share the keys" "$(changed 'd128 ' 'd128_split ' | sed 's/75.0 % | 75/59.9 % | 75/')" "59.9 % of the loop's issue cycles by the emulator (60 % at least)"
expect "no figure by llvm-mca" "$(changed '75.0 % | 1.9' '- | 1.9')" "has no figure: -"
expect "LDS conflicts" "$(changed '1.9 %' '2.0 %')" "loses 2.0 %"
expect "conflicts of other rows" "$row
| wmma_bf16_d32 | gfx1100 | 194 | 101 | 8 | 7 | 16 | 54.0 % | 54.0 % | - | 5.3 % |" "wmma_bf16_d32_gfx1100: loses 5.3 %"
expect "one wave" "$(changed '| 2 | 64' '| 1 | 64')" "leaves room for 1 waves"
expect "no row with an aim" "$(changed d128 d64)" "no row of 128 channels on gfx942"
