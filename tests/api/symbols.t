#!/bin/sh
# symbols.t: the shared library exports exactly the functions that rapt.h declares, and needs no library but the C library's.
set -u
library=${RAPT_BUILD:-build}/librapt.so
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
echo 1..3
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
exit $failed
