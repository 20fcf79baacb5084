#!/bin/sh
# Programs of another architecture, to be run under qemu: foreign_root.sh ARCH DIRECTORY PACKAGE...
#
# Unpacks Debian packages and what they depend on into a folder. Nothing of them is run, nothing is
# installed, no rights are needed: qemu-ARCH-static -L DIRECTORY DIRECTORY/usr/bin/python3 ...
set -eu

arch=$1 directory=$2
shift 2
rm -rf "$directory"
mkdir -p "$directory/apt/state/lists/partial" "$directory/apt/cache/archives/partial"
apt=$(cd "$directory/apt" && pwd)
: >"$apt/status"

# apt with a state of its own, in which nothing is installed.
private_apt() {
    apt-get -qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" \
        -o "Dir::Cache=$apt/cache" -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" \
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none "$@"
}

private_apt update
private_apt install --yes --download-only --no-install-recommends "$@"
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$directory"
done
rm -rf "$apt"
