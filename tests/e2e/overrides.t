#!/bin/sh
# overrides.t: each environment name of overrides.def on a GPU. With a file of the row's own its problems pass. With that file cut
# short, with another arch's, with another row's and with none they fail, by a sentence that names the variable: so it is that file
# that runs, and a bad one is refused.
#   RAPT_TEST_DEVICE   cuda:0 (default) or hip:0; a machine without it skips
#   RAPT_OBJECTS       folder of ROW_ARCH.co (default: those that the library was built from)
set -u
cd "$(dirname "$0")/../.." || exit 1
rapt=${RAPT_BUILD:-build}/rapt
device=${RAPT_TEST_DEVICE:-cuda:0}
[ "$device" = gpu ] && device=cuda:0
objects=${RAPT_OBJECTS:-${RAPT_BUILD:-build}/gpu}
[ -x "$rapt" ] || { echo "1..0 # SKIP $rapt was not built (it needs jansson and cairo)"; exit 0; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
# "row arch" of each row that the device's vendor has and this machine uses; "row other" of each that it does not use.
"$rapt" info --json | "${PYTHON:-python3}" -c '
import json, sys
for k in json.load(sys.stdin)["kernels"]:
    if k["backend"] == sys.argv[1] and k["arch"] != "any" and not k["arch"].startswith("compute"):
        print(k["name"], k["arch"], "used" if k["present"] else "other")' "${device%:*}" > "$folder/kernels"
grep -q ' used$' "$folder/kernels" || { echo "1..0 # SKIP no GPU here ($device)"; exit 0; }
case $device in cuda:*) suffix=CUBIN ;; *) suffix=HSACO ;; esac

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

check() { # variable, file, row
    env "$1=$2" "$rapt" check --device "$device" --select "$(problems "$3")" > "$folder/out" 2>&1
}

refused() { # variable, file, row, words of the sentence, what the file is
    check "$1" "$2" "$3"
    [ $? != 0 ] && grep -q "$1: .*$4" "$folder/out"
    say $? "$1: $5 is refused by name"
}

arch_of() { # row, "used" or "other": an arch whose object is here
    while read -r name arch use; do
        [ "$name $use" = "$1 $2" ] && [ -s "$objects/${1}_$arch.co" ] && echo "$arch" && return
    done < "$folder/kernels"
}

sed -n 's/^OVERRIDE(\([a-z_]*\), *\([A-Z_]*\))$/\1 \2/p' src/gpu/overrides.def > "$folder/rows"
while read -r row stem; do
    variable=${stem}_$suffix arch=$(arch_of "$row" used) foreign=$(arch_of "$row" other)
    object=$objects/${row}_$arch.co
    check "$variable" "$object" "$row"
    say $? "$variable: the problems of $row on $arch"
    head -c 2000 "$object" > "$folder/short.co"
    refused "$variable" "$folder/short.co" "$row" "is cut short" "a file cut short"
    refused "$variable" "$folder/none.co" "$row" "No such file" "a file that is not there"
    another=softmax
    [ "$row" = softmax ] && another=rope
    refused "$variable" "$objects/${another}_$arch.co" "$row" "no usable entry point $row" "another row's file"
    [ -n "$foreign" ] || continue
    refused "$variable" "$objects/${row}_$foreign.co" "$row" "does not load on $device" "a file for $foreign"
done < "$folder/rows"
[ "$(wc -l < "$folder/rows")" = 9 ]
say $? "nine names"
echo "1..$count"
exit $failed
