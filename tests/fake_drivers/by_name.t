#!/bin/sh
# by_name.t: which kernels the conformance program asks by name, on a stand-in for an sm_90 that takes every row: all that serve, also
# beyond the first 128, and in parts neither more nor less than as a whole.
set -u
build=${RAPT_BUILD:-build}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
count=0 failed=0
say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; failed=1; fi
}
export FAKE_ARCH=sm_90 FAKE_SHARED=232448 RAPT_CUDA_LIBRARY="$build/tests/fake_drivers/libcuda.so"
export RAPT_TEST_DEVICE=cuda RAPT_TEST_KERNELS=all RAPT_TEST_SIZE=0
runs() { "$build/tests/fake_drivers/conformance" --runs; }

runs > "$folder/whole"
awk 'NF == 4 { print $4 }' "$folder/whole" | sort -u > "$folder/kernels"
names=$(wc -l < "$folder/kernels")
[ "$names" -gt 128 ]; say $? "more than 128 kernels are asked by name"
echo "# $names"

# The last rows of the table for NVIDIA: what is lost first where a list ends early.
awk '$3 == "cuda" && $1 ~ /^flash/ { print $1 }' "$build/gpu/rows.txt" | sort -u > "$folder/last"
comm -23 "$folder/last" "$folder/kernels" > "$folder/missing"
[ -s "$folder/last" ] && [ ! -s "$folder/missing" ]; say $? "each portable kernel is among them"
sed 's/^/# missing: /' "$folder/missing"

for part in 0 1 2; do RAPT_TEST_PARTS=3 RAPT_TEST_PART=$part runs; done | sort > "$folder/parts"
sort "$folder/whole" | cmp -s - "$folder/parts"; say $? "three parts are the whole"

RAPT_TEST_KERNELS='flash_d128' runs | awk 'NF == 4 { print $4 }' | sort -u > "$folder/one"
[ "$(cat "$folder/one")" = flash_d128 ]; say $? "a pattern names its kernels alone"
echo "1..$count"
exit $failed
