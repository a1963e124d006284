#!/bin/sh
# platforms.t: platforms beside those of the kernels. For what rapt is not made for, make says so; with other C libraries, and for machines
# with scalar code alone, the library compiles without a warning where the compiler is at hand, and computes the same under qemu.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
unset MAKEFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS SAN
echo 1..7
. tests/api/say.sh
have() { command -v "$1" > /dev/null; }
build() { # name, compiler, goals
    name=$1 compiler=$2
    shift 2
    make -s NVCC= HIP_CLANG= PKG_CONFIG=false CC="$compiler" CFLAGS="-O2 -Werror" B="$folder/$name" "$@" > "$folder/log" 2>&1
}
refuses() { # what, flags
    make -n CFLAGS="$2" NVCC= HIP_CLANG= B="$folder/none" > "$folder/log" 2>&1
    [ $? = 2 ] && [ "$(wc -l < "$folder/log")" = 1 ] && grep -q 'rapt needs 64-bit Linux, and .* with pointers of . bytes: name another' "$folder/log"
    say $? "$1"
}
refuses "32-bit machines are refused in a sentence" "-U__SIZEOF_POINTER__ -D__SIZEOF_POINTER__=4"
refuses "other systems are refused in a sentence" -U__linux__
make -n CFLAGS=-U__linux__ clean help > "$folder/log" 2>&1; say $? "but make clean and make help work there"

# Of the kernels of this machine nothing depends on the C library.
sources=$(ls src/*.c src/base/*.c src/cpu/*.c src/cpu/scalar/*.c src/gpu/*.c)
if have musl-gcc; then
    # shellcheck disable=SC2046
    build musl musl-gcc $(for f in $sources; do echo "$folder/musl/${f%.c}.o"; done); say $? "against musl: no warning"
    build musl musl-gcc PKG_CONFIG=echo tool; grep -q '^tool: left out, needs argp.h' "$folder/log"; say $? "without argp.h the tool is left out"
else
    skip "against musl: no warning" "musl-gcc is not installed"
    skip "without argp.h the tool is left out" "musl-gcc is not installed"
fi

other() { # architecture, what
    if ! have "$1-linux-gnu-gcc"; then skip "$2" "$1-linux-gnu-gcc is not installed"; return; fi
    if ! have "qemu-$1"; then skip "$2" "qemu-$1 is not installed"; return; fi
    cmocka=$folder/$1/tests/cross/cmocka.o
    build "$1" "$1-linux-gnu-gcc" AR="$1-linux-gnu-ar" TEST_LIBS="$cmocka" "$cmocka" library "$folder/$1/tests/conformance/conformance" &&
        RAPT_TEST_DEVICE=cpu RAPT_TEST_SIZE=0 RAPT_TEST_FILTER='semantics/everything*,quant/*,op/kv-append*,op/rope-partial*' \
            "qemu-$1" -L "/usr/$1-linux-gnu" "$folder/$1/tests/conformance/conformance" > "$folder/log" 2>&1 &&
        grep -q '^ok 20 ' "$folder/log" && ! grep -q '^not ok' "$folder/log"
    say $? "$2"
}
other riscv64 "scalar code alone"
other s390x "scalar code alone, the high byte first"
exit $failed
