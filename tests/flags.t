#!/bin/sh
# flags.t: what a packager's environment says to the compiler is heard, but takes from the library neither its header nor NaN; other flags make
# objects anew, but not for `make install`.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
unset MAKEFLAGS CFLAGS CPPFLAGS SAN
echo 1..7
failed=0
say() { # passed, number, what
    if [ "$1" = 0 ]; then echo "ok $2 - $3"; else echo "not ok $2 - $3"; sed 's/^/# /' "$folder/log"; failed=1; fi
}
mkdir -p "$folder/another/rapt" && echo '#error another rapt.h' > "$folder/another/rapt/rapt.h"
CPPFLAGS="-I$folder/another -DGIVEN=1" make -s NVCC= HIP_CLANG= B="$folder/b" "$folder/b/src/plan_cache.o" > "$folder/log" 2>&1
say $? 1 "a folder of CPPFLAGS with another rapt.h"

# The macros that the compiler has under the command that compiles $1.
macros() {
    make -n NVCC= HIP_CLANG= B="$folder/b" "$folder/b/$1.o" | sed -n 's/ -MMD -MP / /; s/ -c \([^ ]*\) -o .*/ -dM -E \1/p' | tail -n 1 > "$folder/command"
    sh "$folder/command" 2> "$folder/log"
}
CPPFLAGS=-DGIVEN=1 CFLAGS="-O1 -ffast-math" macros src/api > "$folder/macros"
grep -q '^#define GIVEN 1$' "$folder/macros"; say $? 2 "macros of CPPFLAGS"
CFLAGS=-Ofast macros src/cpu/scalar/rows >> "$folder/macros"
[ "$(grep '^#define __FINITE_MATH_ONLY__' "$folder/macros" | sort | uniq -c | tr -s ' ')" = " 2 #define __FINITE_MATH_ONLY__ 0" ]
say $? 3 "-ffast-math and -Ofast leave NaN and infinities as they are"

CPPFLAGS="-I$folder/another -DGIVEN=1" make -q NVCC= HIP_CLANG= B="$folder/b" "$folder/b/src/plan_cache.o" > "$folder/log" 2>&1
same=$?
make -q NVCC= HIP_CLANG= B="$folder/b" "$folder/b/src/plan_cache.o" >> "$folder/log" 2>&1
other=$?
[ $same = 0 ] && [ $other = 1 ]; say $? 4 "an object stays while the flags do"
make -n NVCC= HIP_CLANG= B="$folder/b" install > "$folder/log" 2>&1
! grep -q -e '-c src/plan_cache.c' "$folder/log" && grep -q -e '-c src/plan.c' "$folder/log"
say $? 5 "make install leaves an object as it was compiled"

make -s NVCC= HIP_CLANG= CC=false B="$folder/none" library > "$folder/log" 2>&1
[ $? = 2 ] && ! find "$folder/none" -type f ! -name flags.txt ! -name rules.mk ! -name '*.i' | grep . >> "$folder/log"
say $? 6 "a compiler that fails leaves nothing that a later make takes for made"

case $(${CC:-cc} -dumpmachine) in
x86_64*)
    CFLAGS="-O1 -fcf-protection" make -s NVCC= HIP_CLANG= B="$folder/cf" "$folder/cf/gpu/code_objects.o" > "$folder/log" 2>&1 &&
        [ ! -s "$folder/log" ] && readelf -n "$folder/cf/gpu/code_objects.o" 2>&1 | tee "$folder/log" | grep -q 'IBT, SHSTK'
    say $? 7 "-fcf-protection is noted in the object of GPU code too"
    ;;
*) echo "ok 7 - -fcf-protection is noted in the object of GPU code too # SKIP x86-64 alone has it" ;;
esac
exit $failed
