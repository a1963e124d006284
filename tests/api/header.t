#!/bin/sh
# header.t: rapt.h compiles alone, twice included, without a warning, in C99, C++11 and newer, with each compiler at hand; C++ also without casts of C.
set -u
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cat > "$folder/alone.c" <<'END'
#include <rapt/rapt.h>
#include <rapt/rapt.h>
int main(void)
{
    rapt_attention a = {0};
    a.struct_size = sizeof a;
    a.q = rapt_tensor_bthd(0, RAPT_F32, 1, 2, 3, 4);
    a.k = rapt_tensor_bhtd(0, RAPT_BF16, 1, 2, 3, 4);
    a.window_left = RAPT_WINDOW(-1);
    return a.q.stride[2] == 8 && a.k.stride[1] == 12 && a.window_left == 0 && RAPT_OK == 0 && RAPT_I64 == 7 ? 0 : 1;
}
END
sed 's/= {0}/= {}/; s/bthd(0/bthd(nullptr/; s/bhtd(0/bhtd(nullptr/' "$folder/alone.c" > "$folder/alone.cpp"
flags="-Wall -Wextra -Wpedantic -pedantic-errors -Werror -Wshadow -Wconversion -Wcast-qual -Iinclude"
cpp="-Wold-style-cast -Wzero-as-null-pointer-constant"
count=0
failed=0
check() { # name, compiler, standard, file, further flags
    count=$((count + 1))
    if ! command -v "$2" > /dev/null; then
        echo "ok $count - $1 # SKIP $2 is not installed"
    elif $2 -std="$3" $flags $5 -o "$folder/program" "$folder/$4" 2> "$folder/log" && "$folder/program"; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        sed 's/^/# /' "$folder/log"
        failed=1
    fi
}
echo 1..8
check "C99" "${CC:-cc}" c99 alone.c ""
check "C11" "${CC:-cc}" c11 alone.c ""
check "C11, clang" clang c11 alone.c ""
check "C23" "${CC:-cc}" c2x alone.c ""
check "C++11" "${CXX:-c++}" c++11 alone.cpp "$cpp"
check "C++17" "${CXX:-c++}" c++17 alone.cpp "$cpp"
check "C++17, clang" clang++ c++17 alone.cpp "$cpp"
check "C++20" "${CXX:-c++}" c++20 alone.cpp "$cpp"
exit $failed
