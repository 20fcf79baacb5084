#!/bin/sh
# A Python that is linked with musl, to try the wheels for musl with: musl_python.sh PYTHON DIRECTORY
#
#   Debian's source packages -> zlib, OpenSSL, SQLite, CPython, compiled by the zig that PYTHON has
#
# Nobody packages one where Debian and pip are all there is. For x86-64; needs Debian's packages musl,
# whose loader the programs name, and tcl, in which SQLite's sources are put together. DIRECTORY then
# has bin/python3; the sources are removed again.
set -eu

zig=$1
mkdir -p "$2"
directory=$(cd "$2" && pwd)
work=$directory/work
rm -rf "$directory"
mkdir -p "$work/tools" "$work/apt/sources" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"

# --- Sources --------------------------------------------------------------------------------------

# apt with a state of its own, for the release itself: of its updates the source may lack.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
private_apt() {
    apt-get -qq -o "Dir::State=$work/apt" -o "Dir::Cache=$work/apt/cache" \
        -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/apt/sources" \
        -o "APT::Sandbox::User=$(id -un)" -o "APT::Default-Release=$release" \
        -o Acquire::Languages=none "$@"
}
# Both notations of apt.
cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed 's/^Types:.*/Types: deb-src/' \
    >"$work/apt/sources/these.sources"
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' \
    >"$work/apt/sources/these.list"
cd "$work"
private_apt update
private_apt source --download-only zlib openssl sqlite3 python3.11
for archive in *.orig.tar.*; do
    case $archive in *.asc) continue ;; esac
    tar -xf "$archive"
done

# --- Compile --------------------------------------------------------------------------------------

# Python notes in itself when it was compiled, which zig refuses.
for tool in cc ar ranlib; do
    case $tool in
        cc) words='cc -target x86_64-linux-musl -dynamic -Wno-date-time' ;;
        *) words=$tool ;;
    esac
    printf '#!/bin/sh\nexec "%s" -m ziglang %s "$@"\n' "$zig" "$words" >"tools/musl-$tool"
    chmod +x "tools/musl-$tool"
done
PATH=$work/tools:$PATH CC=musl-cc AR=musl-ar RANLIB=musl-ranlib
export PATH CC AR RANLIB

# step NAME COMMAND...: run it; what it says is shown only if it fails.
step() {
    log=$work/$1.log
    shift
    "$@" >"$log" 2>&1 || {
        tail -40 "$log" >&2
        exit 1
    }
}

jobs=-j$(nproc)
cd "$work"/zlib-*
CFLAGS='-O2 -fPIC' step zlib-configure ./configure --static --prefix="$work/libraries"
step zlib make "$jobs" install
cd "$work"/openssl-*
step openssl-configure ./Configure linux-x86_64 no-shared no-asm no-tests no-engine no-dso \
    no-module --prefix="$work/libraries" --libdir=lib
step openssl make "$jobs" build_libs
step openssl-install make install_dev
cd "$work"/sqlite3-*
step sqlite-configure env CFLAGS='-O2 -fPIC' ./configure --disable-shared --disable-tcl \
    --disable-readline --disable-load-extension --prefix="$work/libraries"
step sqlite make "$jobs" install
cd "$work"/Python-*
# zig's musl is newer than Debian's, which has neither of the two functions; and the test of
# getaddrinfo asks for names of hosts.
step python-configure env ac_cv_func_preadv2=no ac_cv_func_pwritev2=no ac_cv_buggy_getaddrinfo=no \
    ./configure --build=x86_64-pc-linux-musl --prefix="$directory" --disable-test-modules \
    --with-openssl="$work/libraries" CPPFLAGS="-I$work/libraries/include" \
    LDFLAGS="-L$work/libraries/lib" LIBSQLITE3_CFLAGS="-I$work/libraries/include" \
    LIBSQLITE3_LIBS="-L$work/libraries/lib -lsqlite3"
step python make "$jobs"
step python-try ./python -c 'import sqlite3, ssl, zlib'
step python-install make install
cd "$directory"
rm -rf "$work"
