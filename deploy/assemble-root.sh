#!/bin/sh
# Puts together the root of the container image: Node.js with the libraries it is linked with, and this program with its packages. Run by the Dockerfile in a checkout after `npm ci --omit=dev`; works for every architecture, since the libraries are asked for.
# usage: assemble-root.sh NODE TARGET
set -eu
node=$1
target=$2
program="$target/opt/strongroom"

mkdir -p "$program" "$target/usr/bin" "$target/etc/strongroom" "$target/tmp" "$target/var/lib/strongroom"
install -m 0755 "$node" "$target/usr/bin/node"

# Libraries of Node.js and of the native modules (argon2), and the loader, at the paths where they are looked for.
# Modules for other platforms lie beside; ldd has nothing to say of them.
{ ldd "$node" && find node_modules -name '*.node' -type f -exec ldd {} \; 2>/dev/null || true; } |
  sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u |
  while read -r library; do
    mkdir -p "$target$(dirname "$library")"
    cp -L "$library" "$target$library"
  done

printf 'root:x:0:0:root:/:/none\nstrongroom:x:65532:65532:strongroom:/var/lib/strongroom:/none\n' >"$target/etc/passwd"
printf 'root:x:0:\nstrongroom:x:65532:\n' >"$target/etc/group"

cp -R package.json LICENSE cli client-sdk command-line framing gen migrations protocol server node_modules "$program/"
# For tests only; npm wants its package.json while it installs.
rm -f "$program/node_modules/@strongroom/testkit"
rm -rf "$program"/*/test
chmod 1777 "$target/tmp"
chmod -R a+rX "$program"
chown -R 65532:65532 "$target/var/lib/strongroom"
