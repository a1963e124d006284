#!/bin/sh
# embedded.t: a build without GPU compilers embeds the prebuilt objects that are there, whichever they are, takes up a changed or a
# new one, lets go of one that is gone, asks none for the order of its instructions (they may be packed), and fails when all together are
# larger than may be.
cd "$(dirname "$0")/.." || exit 1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/prebuilt"
count=0

object() { # NAME_ARCH, bytes
    head -c "$2" /dev/zero > "$folder/prebuilt/$1.co"
}

build() { # more of make's arguments; the report, or the failure, goes to $folder/out
    env -u MAKEFLAGS -u MAKELEVEL make -s B="$folder/build" NVCC= HIP_CLANG= SAN= PREBUILT="$folder/prebuilt" "$@" \
        "$folder/build/gpu/size.txt" > "$folder/out" 2>&1 && cat "$folder/build/gpu/size.txt" > "$folder/out"
}

expect() { # what, words of the report or the failure, make's arguments
    count=$((count + 1)) what=$1 words=$2
    shift 2
    build "$@"
    if grep -q "$words" "$folder/out"; then echo "ok $count - $what"; return; fi
    echo "not ok $count - $what"
    sed 's/^/# /' "$folder/out"
}

echo 1..9
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
count=$((count + 1))
if env -u MAKEFLAGS -u MAKELEVEL make -n -s B="$folder/build" NVCC= HIP_CLANG= SAN= PREBUILT="$folder/prebuilt" extra > "$folder/out" 2>&1 &&
    ! grep -q 'sass_order.*sm90_bf16_d64' "$folder/out"
then echo "ok $count - no order asked of what was not compiled"
else echo "not ok $count - no order asked of what was not compiled"; sed 's/^/# /' "$folder/out"
fi
