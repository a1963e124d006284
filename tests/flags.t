#!/bin/sh
# flags.t: what a packager's environment says to the compiler is heard, but takes from the library neither its header nor NaN; other flags make
# objects anew, but not for `make install`, which installs what the last make built as that was told to build it.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
unset MAKEFLAGS MAKELEVEL CFLAGS CPPFLAGS SAN NVCC HIP_CLANG KERNELS
echo 1..12
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

# With compilers for GPU code at hand that the last make was told to leave alone.
mkdir "$folder/bin"
for compiler in nvcc clang-22; do printf '#!/bin/sh\nexit 1\n' > "$folder/bin/$compiler" && chmod +x "$folder/bin/$compiler"; done
install() {
    PATH="$folder/bin:$PATH" make -n KERNELS='softmax_*' "$@" install > "$folder/all" 2>&1
    grep -e "$folder/bin/" -e ' src/api\.c ' -e settings.mk "$folder/all" > "$folder/log"
}
asks_for() { grep -q "$folder/bin/$1 -" "$folder/log"; }
CFLAGS="-O1 -DGIVEN='\$\$(B) # it'" make -s NVCC= HIP_CLANG= B="$folder/i" "$folder/i/settings.mk"
install B="$folder/i" && ! asks_for nvcc && ! asks_for clang-22 && grep -qF -- "-O1 -DGIVEN='\$(B) # it' " "$folder/log"
say $? 6 "make install has the settings of the last make"
install B="$folder/i" NVCC="$folder/bin/nvcc" && asks_for nvcc && ! asks_for clang-22; say $? 7 "its own command line counts for more"
install B="$folder/j" && asks_for nvcc && asks_for clang-22 && grep -q "$folder/j/settings.mk" "$folder/log"
say $? 8 "what it builds itself it builds as make, which notes its settings"

make -s NVCC= HIP_CLANG= CC=false B="$folder/none" library > "$folder/log" 2>&1
[ $? = 2 ] && ! find "$folder/none" -type f ! -name flags.txt ! -name settings.mk ! -name rules.mk ! -name '*.i' | grep . >> "$folder/log"
say $? 9 "a compiler that fails leaves nothing that a later make takes for made"

case $(${CC:-cc} -dumpmachine) in
x86_64*)
    CFLAGS="-O1 -fcf-protection" make -s NVCC= HIP_CLANG= B="$folder/cf" "$folder/cf/gpu/code_objects.o" > "$folder/log" 2>&1 &&
        [ ! -s "$folder/log" ] && readelf -n "$folder/cf/gpu/code_objects.o" 2>&1 | tee "$folder/log" | grep -q 'IBT, SHSTK'
    say $? 10 "-fcf-protection is noted in the object of GPU code too"
    ;;
*) echo "ok 10 - -fcf-protection is noted in the object of GPU code too # SKIP x86-64 alone has it" ;;
esac

stamps() { # its arguments
    make -n NVCC="$folder/bin/nvcc" HIP_CLANG= B="$folder/t" KERNELS=sm90_bf16_d64_sm_90a "$@" > "$folder/all" 2>&1
    grep -e "$folder/bin/nvcc .*/sm90_bf16_d64_sm_90a.co" "$folder/all" > "$folder/log" && grep -q -e '-DTRACE' "$folder/log"
}
TRACE=1 stamps library; [ $? = 1 ] && [ -s "$folder/log" ]; say $? 11 "a TRACE of the environment leaves the kernels as they are"
stamps trace-gpu; say $? 12 "make trace-gpu asks for their stamps"
exit $failed
