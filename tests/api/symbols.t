#!/bin/sh
# symbols.t: the shared library exports exactly the functions that rapt.h declares, and needs no library but the C library's; the static
# one leaves all other names to the program.
set -u
library=${RAPT_BUILD:-build}/librapt.so
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
echo 1..6
# A sanitizer is a library of its own.
runtime=${SANITIZED_BY:+|libasan|libubsan|libtsan}
failed=0
say() { # passed, number, name
    if [ "$1" = 0 ]; then echo "ok $2 - $3"; else echo "not ok $2 - $3"; failed=1; fi
}
nm -D --defined-only "$library" | awk '{print $NF}' | sort > "$folder/exported" || exit 1
grep -v '@\?rapt_' "$folder/exported" > "$folder/foreign"
[ ! -s "$folder/foreign" ]; say $? 1 "every exported symbol begins with rapt_"
sed 's/^/# /' "$folder/foreign"
grep -v '^#' include/rapt/rapt.h | tr '\n' ' ' | grep -o 'RAPT_API [^;(]*(' | sed 's/ *($//; s/.*[ *]//' | sort -u > "$folder/declared"
cmp -s "$folder/declared" "$folder/exported"; say $? 2 "the exported symbols are the declared functions"
diff "$folder/declared" "$folder/exported" | sed 's/^/# /'
readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -v -E "^(libc|libm|libdl|libpthread|ld-linux[-_a-z0-9]*$runtime)\.so" > "$folder/needed"
[ ! -s "$folder/needed" ]; say $? 3 "no library is needed but the C library"
sed 's/^/# /' "$folder/needed"
nm -g --defined-only "${library%.so}.a" | awk 'NF == 3 { print $3 }' | grep -v '^__' | sort > "$folder/static"
cmp -s "$folder/declared" "$folder/static"; say $? 4 "the static library's global symbols are the declared functions"
diff "$folder/declared" "$folder/static" | sed 's/^/# /'
cat > "$folder/program.c" <<'END'
#include <rapt/rapt.h>
const char *fail(int status, const char *text) { return status ? text : ""; }
int view_of = 1, cuda_driver = 2, last_error = 3;
int main(void)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config) || fail(0, "")[0]) return 1;
    rapt_close(&context);
    return view_of + cuda_driver + last_error != 6;
}
END
# shellcheck disable=SC2086
${CC:-cc} ${LDFLAGS:-} -Iinclude -o "$folder/program" "$folder/program.c" "${library%.so}.a" -lm -lpthread -ldl > "$folder/log" 2>&1 &&
    "$folder/program" >> "$folder/log" 2>&1
say $? 5 "a program with names of its own links with it"
sed 's/^/# /' "$folder/log"
readelf -dlW "$library" | grep -E 'TEXTREL|RPATH|RUNPATH|GNU_STACK.*E ' > "$folder/log"
[ ! -s "$folder/log" ]; say $? 6 "neither an executable stack nor text relocations nor a path of the build"
sed 's/^/# /' "$folder/log"
exit $failed
