#!/bin/sh
# Makes the secrets and folders that deploy/compose.yaml expects, in the checkout, readable by the user of the image alone. Leaves alone what is
# there. Run as root: sudo sh deploy/compose-init.sh
set -eu
umask 077
cd "$(dirname "$0")/.."
# The user of the image; see deploy/Dockerfile.
user=65532:65532
if [ "$(id -u)" -ne 0 ]; then
  echo "compose-init.sh: run it as root (sudo sh deploy/compose-init.sh): it gives files to the user of the image" >&2
  exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

if ! command -v setfattr >/dev/null; then
  echo "compose-init.sh: setfattr is missing (package attr): it makes the bucket Strongroom's own" >&2
  exit 1
fi

mkdir -p secrets config data/storage/strongroom data/storage-users
[ -e secrets/database-password ] || random >secrets/database-password
if ! [ -e secrets/s3-credentials ]; then
  access=$(random | cut -c1-20)
  secret=$(random)
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access" "$secret" >secrets/s3-credentials
  # An account of versitygw that has the one bucket and no say in the server, in the server's own form. The root account
  # is for the operator, and Strongroom never has it.
  printf '{"accessAccounts":{"%s":{"access":"%s","secret":"%s","role":"user","userID":0,"groupID":0,"projectID":0}}}' \
    "$access" "$access" "$secret" >data/storage-users/users.json
  setfattr -n user.acl data/storage/strongroom -v "$(
    printf '{"Owner":"%s","Grantees":[{"Permission":"FULL_CONTROL","Access":"%s","Type":"CanonicalUser"}]}' "$access" "$access"
  )"
  printf 'ROOT_ACCESS_KEY=%s\nROOT_SECRET_KEY=%s\n' "$(random | cut -c1-20)" "$(random)" >secrets/s3-server.env
fi
chown "$user" secrets/database-password secrets/s3-credentials config
echo "The secrets are in ./secrets, the configuration goes into ./config, the bucket is in ./data/storage."
