#!/bin/sh
# faults.t: the tests of the AMX levels notice what goes wrong in them: each fault of the model (amx_model.h) must fail the tests of
# kernels or a conformance problem, and the sound model must have multiplied tiles.
set -u
build=${RAPT_BUILD:-build}/tests/amx
export RAPT_TEST_DEVICE=cpu RAPT_TEST_SIZE=1 # under sanitizers too: smaller ones multiply no tiles
bf16="swapped_pairs lost_last_pair stale_sum row_too_few kept_shape rounded_sum"
int8="$bf16 signed_bytes"
f32="swapped_pairs lost_last_pair stale_sum row_too_few rounded_sum" # one shape serves it
use() { # level
    export RAPT_CPU=$1
    case $1 in
    amx) export RAPT_TEST_FILTER='tile/causal-129*,tile/keys-*bf16,semantics/weights*bf16,semantics/everything*bf16' faults=$bf16 ;; # the last: no pipeline
    amx_f32) export RAPT_TEST_FILTER='tile/causal-129*,tile/keys-*f32' faults=$f32 ;;
    *) export RAPT_TEST_FILTER='quant/*' faults=$int8 ;;
    esac
}
available=""
planned=0
for level in amx amx_f32 amx_int8; do
    use $level
    "$build/conformance" 2> /dev/null | grep -q '^1\.\.0' && continue
    available="$available $level"
    planned=$((planned + 2 + $(echo "$faults" | wc -w)))
done
if [ $planned = 0 ]; then
    echo "1..0 # SKIP this CPU has neither AVX-512 BF16 nor VNNI"
    exit 0
fi
echo "1..$planned"
failed=0
count=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; failed=1; fi
}
for level in $available; do
    use $level
    "$build/conformance" > /dev/null 2>&1
    say $? "$level: the sound model passes"
    dots=$(RAPT_AMX_COUNT=1 "$build/conformance" 2>&1 | sed -n 's/^amx_model: \([0-9]*\) products$/\1/p')
    [ "${dots:-0}" -gt 100 ]
    say $? "$level: it multiplied ${dots:-no} tiles"
    for fault in $faults; do
        ! RAPT_AMX_FAULT=$fault "$build/conformance" > /dev/null 2>&1
        say $? "$level: $fault is noticed"
    done
done
exit $failed
