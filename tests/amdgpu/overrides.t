#!/bin/sh
# overrides.t: each environment name of overrides.def with a code object that was built for it alone: its problems pass; with the
# same file cut short they fail, by a sentence that names the variable, so it is that file that runs. RAPT_OBJECTS: a folder
# of ARCH/ROW.co. The device is an emulated GPU (RAPT_HIP_LIBRARY, RAPT_EMULATE).
set -u
cd "$(dirname "$0")/../.." || exit 1
rapt=${RAPT_BUILD:-build}/rapt
[ -x "$rapt" ] || { echo "1..0 # SKIP $rapt was not built (it needs jansson and cairo)"; exit 0; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

problems() { # of a row
    case $1 in
    flash_nocausal) echo 'semantics/plain-*' ;;
    flash_causal) echo 'semantics/causal-f*,semantics/causal-b*' ;;
    flash) echo 'semantics/everything*' ;;
    causal_mask) echo 'op/causal-mask-*' ;;
    kv_replicate) echo 'op/kv-replicate-*' ;;
    *) echo "op/$1-*" ;;
    esac
}

count=0 failed=0
say() { # status, name
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; return; fi
    echo "not ok $count - $2"
    head -n 5 "$folder/out" | sed 's/^/# /'
    failed=1
}

sed -n 's/^OVERRIDE(\([a-z_]*\), *\([A-Z_]*\))$/\1 \2/p' src/gpu/overrides.def > "$folder/rows"
while read -r row stem; do
    variable=${stem}_HSACO object=$RAPT_OBJECTS/$RAPT_EMULATE/$row.co
    env "$variable=$object" "$rapt" check --device hip:0 --select "$(problems "$row")" > "$folder/out" 2>&1
    say $? "$variable: the problems of $row on $RAPT_EMULATE"
    head -c 2000 "$object" > "$folder/short.co"
    env "$variable=$folder/short.co" "$rapt" check --device hip:0 --select "$(problems "$row")" > "$folder/out" 2>&1
    [ $? != 0 ] && grep -q "$variable" "$folder/out"
    say $? "$variable: a damaged file is refused by name"
done < "$folder/rows"
[ "$count" = 18 ]
say $? "nine names"
echo "1..$count"
exit $failed
