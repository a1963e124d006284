#!/bin/sh
# install.t: a program builds and runs against what `make install` wrote (the Makefile's goal `installed` did): through pkg-config,
# shared and static, from a folder with spaces too, and through the CMake package, also where all of it was moved to; DESTDIR moves everything, any umask leaves it readable,
# and `make uninstall` takes it all away.
set -u
build=${RAPT_BUILD:-build}
root=$build/tests/installed
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export PKG_CONFIG_PATH="$root/lib/pkgconfig"
pkg_config=${PKG_CONFIG:-pkg-config}
echo 1..11
. tests/api/say.sh

: > "$folder/log"
for file in include/rapt/rapt.h lib/librapt.a lib/librapt.so lib/librapt.so.0 lib/pkgconfig/rapt.pc lib/cmake/rapt/raptConfig.cmake \
    lib/cmake/rapt/raptConfigVersion.cmake share/man/man1/rapt.1; do
    [ -s "$root/$file" ] || echo "$file is missing" >> "$folder/log"
done
[ ! -s "$folder/log" ]; say $? "every file is in its place"

find "$root" "$root.destdir" ! -type l ! -perm -444 > "$folder/log"
[ ! -s "$folder/log" ]; say $? "all may read it, although the umask was 077"

(cd "$root" && find . ! -type d | sort) > "$folder/plain"
(cd "$root.destdir/usr" && find . ! -type d | sort) > "$folder/moved"
diff "$folder/plain" "$folder/moved" > "$folder/log" && ! grep -q "$root" "$root.destdir/usr/lib/pkgconfig/rapt.pc"
say $? "DESTDIR moves all of them and is written into none"

if ! command -v "$pkg_config" > /dev/null; then
    skip "pkg-config, shared" "pkg-config is not installed"
    skip "pkg-config, static" "pkg-config is not installed"
    skip "pkg-config, a folder with spaces" "pkg-config is not installed"
else
    # shellcheck disable=SC2046
    ${CC:-cc} ${LDFLAGS:-} -o "$folder/shared" examples/forward.c $("$pkg_config" --cflags --libs rapt) > "$folder/log" 2>&1 &&
        LD_LIBRARY_PATH=$root/lib "$folder/shared" >> "$folder/log" 2>&1
    say $? "pkg-config, shared"
    # shellcheck disable=SC2046
    ${CC:-cc} ${LDFLAGS:-} -o "$folder/static" examples/forward.c $("$pkg_config" --cflags rapt) "$root/lib/librapt.a" \
        $("$pkg_config" --static --libs-only-l rapt | sed 's/-lrapt//') > "$folder/log" 2>&1 && "$folder/static" >> "$folder/log" 2>&1
    say $? "pkg-config, static"
    # As make and a shell's eval read what it prints.
    spaced="$root of three words"
    flags=$(PKG_CONFIG_PATH="$spaced/lib/pkgconfig" "$pkg_config" --cflags --libs rapt 2> "$folder/log") &&
        eval "${CC:-cc} ${LDFLAGS:-} -o '$folder/spaced' examples/forward.c $flags" >> "$folder/log" 2>&1 &&
        LD_LIBRARY_PATH=$spaced/lib "$folder/spaced" >> "$folder/log" 2>&1
    say $? "pkg-config, a folder with spaces"
fi

# A folder with a space in its name, as a program of CMake may have.
mkdir "$folder/moved to" && cp -a "$root/." "$folder/moved to/" && grep -rlF "$root" "$folder/moved to/lib/cmake" > "$folder/log"
[ ! -s "$folder/log" ]; say $? "the CMake package names no folder"
if ! command -v "$pkg_config" > /dev/null; then skip "pkg-config, moved" "pkg-config is not installed"
else
    "$pkg_config" --define-variable=prefix=/moved --cflags --libs rapt > "$folder/log" 2>&1
    grep -q '^-I/moved/include -L/moved/lib -lrapt *$' "$folder/log"; say $? "pkg-config, moved"
fi

if ! command -v cmake > /dev/null; then
    skip "CMake package, shared and static" "cmake is not installed"
    skip "CMake package, a version that does not fit" "cmake is not installed"
else
    cat > "$folder/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.13)
project(consumer C)
find_package(rapt \${WANTED} REQUIRED)
add_executable(consumer $PWD/examples/forward.c)
target_link_libraries(consumer rapt::rapt)
add_executable(alone $PWD/examples/forward.c)
target_link_libraries(alone rapt::static)
END
    configure() { # folder, version, prefix
        cmake -S "$folder" -B "$folder/$1" -DWANTED="$2" -DCMAKE_PREFIX_PATH="$3" -DCMAKE_EXE_LINKER_FLAGS="${LDFLAGS:-}"
    }
    { configure fits 0.1 "$folder/moved to" && cmake --build "$folder/fits" && "$folder/fits/consumer" && "$folder/fits/alone"; } > "$folder/log" 2>&1
    say $? "CMake package, shared and static"
    ! configure other 0.9 "$root" > "$folder/log" 2>&1
    say $? "CMake package, a version that does not fit"
fi

cp -a "$root.destdir" "$folder/copy" && touch "$folder/copy/usr/lib/another"
MAKEFLAGS='' make -s uninstall PREFIX=/usr DESTDIR="$folder/copy" > "$folder/log" 2>&1 &&
    (cd "$folder/copy/usr" && find . -name '*rapt*' && [ -e lib/another ] || echo "lib/another is gone") > "$folder/log" 2>&1
[ ! -s "$folder/log" ]; say $? "make uninstall takes away what make install wrote and nothing else"
exit $failed
