#!/bin/sh
# embedded.t: a build without GPU compilers embeds the prebuilt objects that are there, whichever they are, takes up a changed or a
# new one, lets go of one that is gone, asks none for the order of its instructions (they may be packed), wants the report of each one's
# compiler beside it, hands that on with `make prebuilt`, and fails when all together are larger than may be.
cd "$(dirname "$0")/.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/prebuilt"
count=0

object() { # NAME_ARCH, bytes
    head -c "$2" /dev/zero > "$folder/prebuilt/$1.co"
}

run_make() { # its arguments
    env -u MAKEFLAGS -u MAKELEVEL make -s B="$folder/build" NVCC= HIP_CLANG= SAN= PREBUILT="$folder/prebuilt" "$@" > "$folder/out" 2>&1
}

build() { # more of make's arguments; the report, or the failure, goes to $folder/out
    run_make "$@" "$folder/build/gpu/size.txt" && cat "$folder/build/gpu/size.txt" > "$folder/out"
}

say() { # passed, what
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; sed 's/^/# /' "$folder/out"; fi
}

expect() { # what, words of the report or the failure, make's arguments
    what=$1 words=$2
    shift 2
    build "$@"
    grep -q "$words" "$folder/out"; say $? "$what"
}

echo 1..12
expect "none" "^0 code objects, [0-9]\{1,5\} bytes"
object softmax_sm_80 100000
object softmax_gfx942 200000
expect "two" "^2 code objects, 3[0-9]\{5\} bytes"
object rope_compute_80 100000
expect "a new one" "^3 code objects, 4[0-9]\{5\} bytes"
object softmax_sm_80 400000
expect "a larger one" "^3 code objects, 7[0-9]\{5\} bytes"
expect "some by name" "^1 code objects, 4[0-9]\{5\} bytes" KERNELS='softmax_sm_*'
expect "all again" "^3 code objects, 7[0-9]\{5\} bytes"
rm "$folder/prebuilt/softmax_sm_80.co"
expect "one gone" "^2 code objects, 3[0-9]\{5\} bytes"
touch "$folder/prebuilt/rope_compute_80.co"
expect "too large" "too many bytes of code objects" EMBEDDED_LIMIT=250000
object sm90_bf16_d64_sm_90a 1000
run_make -n extra && ! grep -q 'sass_order.*sm90_bf16_d64' "$folder/out"; say $? "no order asked of what was not compiled"
rm "$folder"/prebuilt/rope_* "$folder"/prebuilt/sm90_*
run_make "$folder/build/gpu/resources.txt"
grep -q 'softmax_gfx942: no report of its compiler' "$folder/out"; say $? "an object without a report"
line='softmax gfx942 24 40 1024 0 0 0 256 8'
echo "$line" > "$folder/prebuilt/softmax_gfx942.txt"
run_make "$folder/build/gpu/resources.txt" && grep -qx "$line" "$folder/build/gpu/resources.txt"; say $? "an object with one"
rm "$folder/prebuilt/softmax_gfx942.txt"
run_make prebuilt && grep -qx "$line" "$folder/prebuilt/softmax_gfx942.txt"; say $? "make prebuilt writes it"
