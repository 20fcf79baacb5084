#!/bin/sh
# Debian packages of the C library, from what is committed: deb.sh ARCHITECTURE DIRECTORY
#
#   a Debian root with the build dependencies -> dpkg-buildpackage -> lintian -> DIRECTORY
#   a Debian root with a compiler             -> install, build an example in three ways, run it
#
# The roots are made anew from one that debootstrap made once, in build/debian-ARCHITECTURE; so
# nothing of this machine gets into the packages, and a dependency that is not named shows. Needs
# root, and for another architecture qemu-user. SUITE chooses another release of Debian.
set -eu

architecture=$1
mkdir -p "$2"
output=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
roots=$PWD/build/debian-$architecture/$suite
version=$(cat VERSION)
mkdir -p "$roots"

# The kernel hands programs of another architecture to qemu, in every root (flag F).
understand() {
    case $1 in
        arm64) machine=aarch64 ;;
        armhf) machine=arm ;;
        *) return 0 ;;
    esac
    formats=/proc/sys/fs/binfmt_misc
    [ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats
    [ -e $formats/qemu-$machine ] || sed -e "s|:[^:]*:[A-Z]*\$|:$(command -v qemu-$machine-static):F|" \
        /usr/lib/binfmt.d/qemu-$machine.conf >$formats/register
}

# new_root NAME PACKAGE...: a root of its own with these packages; removed again by remove_root.
new_root() {
    root=$roots/$1
    shift
    remove_root
    cp -a "$roots/base" "$root"
    mount -t proc proc "$root/proc"
    apt_in install "$@"
}

remove_root() {
    if mountpoint -q "$root/proc"; then umount "$root/proc"; fi
    rm -rf "$root"
}

within() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        chroot "$root" "$@"
}

apt_in() {
    command=$1
    shift
    within apt-get -qq -y --no-install-recommends "$command" "$@" >"$roots/apt.log" 2>&1 || {
        cat "$roots/apt.log" >&2
        exit 1
    }
}

options=
if [ "$(dpkg --print-architecture)" != "$architecture" ]; then
    understand "$architecture"
    options=nocheck # what qemu makes of the tests is seen by ./dev arm
fi
if [ ! -e "$roots/base/made" ]; then
    echo "deb: making a $suite root for $architecture" >&2
    rm -rf "$roots/base"
    debootstrap --variant=minbase --arch="$architecture" --include=gcc,libc6-dev,pkgconf \
        "$suite" "$roots/base" >"$roots/debootstrap.log" 2>&1 || {
        tail -20 "$roots/debootstrap.log" >&2
        exit 1
    }
    cp /etc/resolv.conf "$roots/base/etc/resolv.conf"
    touch "$roots/base/made"
fi
root=$roots/build
trap remove_root EXIT
trap 'exit 130' INT TERM HUP

# --- Build ----------------------------------------------------------------------------------------

# Unquoted on purpose: what control names, as a list of words.
new_root build build-essential fakeroot $(sed -n 's/^Build-Depends: //p' packaging/debian/control \
    | sed 's/([^)]*)//g; s/:any//g; s/debhelper-compat/debhelper/; s/,/ /g')
source=/build/vevents-$version
mkdir -p "$root$source"
git archive HEAD | tar -x -C "$root$source"
mv "$root$source/packaging/debian" "$root$source/debian"
cat >"$root$source/debian/changelog" <<CHANGELOG
vevents ($version-1) $suite; urgency=medium

  * Version $version; what is new stands in CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' packaging/debian/control)  $(git log -1 --format=%cD)
CHANGELOG
within sh -c "cd $source && DEB_BUILD_OPTIONS=$options dpkg-buildpackage -us -uc -b" >"$roots/build.log" 2>&1 || {
    tail -60 "$roots/build.log" >&2
    exit 1
}
rm -f "$output"/*_"$version"-*_"$architecture".*
cp "$root"/build/*_"$version"-1_"$architecture".* "$output"
remove_root
# The tag asks for a bug number of Debian's own.
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs \
    "$output"/vevents_"$version"-1_"$architecture".changes

# --- Use ------------------------------------------------------------------------------------------

new_root use
for package in libvevents0 libvevents-dev; do
    cp "$output/${package}_$version-1_$architecture.deb" "$root/tmp/$package.deb"
done
apt_in install /tmp/libvevents0.deb /tmp/libvevents-dev.deb
printf '\377\330\377\340 a picture' >"$root/tmp/image.jpg"
within sh -euc '
    cd /tmp
    source=/usr/share/doc/libvevents-dev/examples/c_loop.c
    warnings="-std=c11 -Wall -Wextra -Werror"
    cc $warnings $source $(pkg-config --cflags --libs vevents) -o shared
    cc $warnings $source $(pkg-config --cflags vevents) -Wl,-Bstatic $(pkg-config --libs vevents) \
        -Wl,-Bdynamic -lzstd -pthread -o own
    cc -static $warnings $source $(pkg-config --static --cflags --libs vevents) -o static
    for program in shared own static; do
        printf "deb: %s, %s: " "$(dpkg --print-architecture)" $program
        timeout 300 ./$program log-$program image.jpg image.jpg image.jpg | tail -1
    done
    ldd shared | grep -q libvevents.so.0
    if ldd own | grep libvevents; then exit 1; fi'
ls -l "$output"/*_"$version"-1_"$architecture".deb | awk '{ print $5, $9 }'
