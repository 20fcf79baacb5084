#!/bin/sh
# A static library that shows what the shared one shows: prelink.sh OUTPUT SCRATCH ARCHIVE... -- CC...
#
# The archives become one object in which all names but those of VEV_API are local. So an application may have a zstd of
# its own, before or after this library on its command line, and each keeps to its own.
set -eu

output=$1 object=$2/vevents.o
shift 2
archives=
while [ "$1" != -- ]; do
    archives="$archives $1"
    shift
done
shift
# gcc and clang know their binutils, those of another architecture too; zig does not.
objcopy=$("$@" -print-prog-name=objcopy 2>/dev/null) || objcopy=objcopy
ar=$("$@" -print-prog-name=ar 2>/dev/null) || ar=ar

mkdir -p "$(dirname "$object")"
rm -f "$output"
# Unquoted on purpose: a list of words, made by meson.
"$@" -r -nostdlib -o "$object" -Wl,--whole-archive $archives
"$objcopy" --wildcard --localize-hidden --keep-global-symbol='vev_*' "$object"
"$ar" rcsD "$output" "$object"
