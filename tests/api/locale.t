#!/bin/sh
# locale.t: in a program whose locale writes 0,5 the error sentences write 0.5, and the program's numbers stay as they were.
set -u
build=${RAPT_BUILD:-build}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
echo 1..1
if ! command -v localedef > /dev/null || ! localedef -i de_DE -f UTF-8 "$folder/de_DE.UTF-8" > /dev/null 2>&1; then
    echo "ok 1 - sentences in a locale with commas # SKIP localedef makes no de_DE"
    exit 0
fi
cat > "$folder/program.c" <<'END'
#include <locale.h>
#include <rapt/rapt.h>
#include <stdio.h>
int main(void)
{
    static float x[64];
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (!setlocale(LC_ALL, "de_DE.UTF-8") || rapt_open(&context, &config)) return 1;
    rapt_attention a = {.struct_size = sizeof a, .scale = 1.5e-40};
    a.q = a.k = a.v = a.out = rapt_tensor_bthd(x, RAPT_F32, 1, 1, 8, 8);
    rapt_forward(rapt_device_at(context, 0), &a, NULL);
    printf("%g: %s\n", 0.5, rapt_last_error());
    rapt_close(&context);
    return 0;
}
END
# shellcheck disable=SC2086
${CC:-cc} ${LDFLAGS:-} -Iinclude -o "$folder/program" "$folder/program.c" "$build/librapt.a" -lm -lpthread -ldl > "$folder/log" 2>&1 &&
    LOCPATH=$folder "$folder/program" >> "$folder/log" 2>&1
if grep -q '^0,5: rapt_forward: scale is 1\.5e-40 (' "$folder/log"; then echo "ok 1 - sentences in a locale with commas"
else
    echo "not ok 1 - sentences in a locale with commas"
    sed 's/^/# /' "$folder/log"
    exit 1
fi
