#!/usr/bin/env bash
# A tour of a key in Key Vault, without Azure: a server on this machine that speaks
# its interface, rotation, a key that is taken away, and the way back with an escrow
# key. make demo-keyvault builds the programs and runs it.
#
# Everything happens in one folder below /tmp, which is kept for a look around. It
# ends with 0 only if what was restored is what was backed up.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
for program in cofferd coffer kvserver; do
	if [ ! -x "$root/bin/$program" ]; then
		echo "demo: $root/bin/$program is not there; make demo-keyvault builds it" >&2
		exit 1
	fi
done
demo=$(mktemp -d "${TMPDIR:-/tmp}/coffer-keyvault.XXXXXX")
export PATH=$root/bin:$PATH COFFER_SOCKET=$demo/coffer.sock

# shellcheck source=packaging/demo/tour.sh
source "$root/packaging/demo/tour.sh"

cloud= # process id of kvserver
last_act() {
	[ -z "$cloud" ] || kill -TERM "$cloud" 2>/dev/null || true
}

start_cloud() {
	kvserver --state "$demo/cloud" >"$demo/kvserver.log" 2>&1 &
	cloud=$!
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		if [ -s "$demo/cloud/admin.json" ] && grep -q '^Then' "$demo/kvserver.log"; then
			return 0
		fi
		kill -0 "$cloud" 2>/dev/null || break
		sleep 0.1
	done
	say "kvserver did not come up:" "$(cat "$demo/kvserver.log")"
	return 1
}

# refused COMMAND...: like show, for a command that must fail.
refused() {
	local code=0
	typed "$@"
	"$@" >"$demo/refused" 2>&1 || code=$?
	sed '/./s/^/   /' "$demo/refused"
	say "(exit code $code)" ""
	[ "$code" != 0 ]
}

write_config() {
	{
		printf 'agent:\n  state: %s\n  socket: %s\n' "$demo/state" "$demo/coffer.sock"
		sed -n '/^keys:/,/^$/p' "$demo/kvserver.log" | sed '/^$/d'
		printf '  escrow: {public: %s}\n' "$demo/escrow.pub"
		printf 'vaults:\n  site: {store: "file://%s", keys: [cloud, escrow]}\n' "$demo/vault"
		printf 'items:\n  docs: {vault: site, files: {paths: ["%s"]}}\n' "$root/docs"
	} >"$demo/coffer.yaml"
	mkdir -m 0700 "$demo/vault"
}

echo "A key in Key Vault, a tour. Everything happens in $demo, called \$DEMO below."

step "A Key Vault on this machine"
say "It is for trying: it keeps its keys in plain files. Coffer talks to it through the" \
	"same Azure client, over TLS, with the same tokens, as it would to the real one." "" \
	"\$ kvserver --state \$DEMO/cloud &" ""
start_cloud

step "An escrow key"
say "Its private half belongs in a safe; the host gets the public half alone." ""
say "\$ openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out safe/escrow.pem" \
	"\$ openssl pkey -in safe/escrow.pem -pubout -out escrow.pub"
mkdir -m 0700 "$demo/safe"
(umask 077 && openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$demo/safe/escrow.pem" 2>/dev/null)
openssl pkey -in "$demo/safe/escrow.pem" -pubout -out "$demo/escrow.pub"

step "The configuration"
write_config
sed 's/^/   | /' "$demo/coffer.yaml"

step "Is the key fit?"
start_service
show coffer key check cloud
show coffer key check escrow

step "A vault under it, and a backup"
show coffer vault create site
show coffer backup docs

step "Rotate"
say "The key's owner makes a new version. The agent would find it within 15 minutes by" \
	"itself; we do not wait. No pack is touched: only key records are written." ""
show kvserver ctl --state "$demo/cloud" rotate backup
show coffer key rotate site
show coffer key usage cloud
show coffer backup docs

step "Take the key away"
show kvserver ctl --state "$demo/cloud" disable backup
say "A running agent closes the vault within ten minutes and zeroes its secrets. One that" \
	"starts has none, so we start it anew." ""
stop_service
start_service
refused coffer key check cloud
refused coffer restore docs "$demo/back"
if [ -e "$demo/back" ]; then
	say "A refused restore wrote something."
	exit 1
fi

step "The way back without it"
say "The escrow key comes out of the safe, onto a bare machine: a store, a vault id from" \
	"the recovery sheet, and the key are all that it takes." ""
id=$(coffer vault show site --json | sed -n 's/.*"id": *"\([a-z2-7]*\)".*/\1/p')
show cofferd rescue --store "file://$demo/vault" --vault-id "$id" --key "file://$demo/safe/escrow.pem" restore docs "$demo/rescued"
diff --recursive --no-dereference "$root/docs" "$demo/rescued$root/docs"
say "Equal, file by file (diff -r)."

step "Give the key back"
show kvserver ctl --state "$demo/cloud" enable backup
stop_service
start_service
show coffer restore docs "$demo/back"
diff --recursive --no-dereference "$root/docs" "$demo/back$root/docs"
say "Equal, file by file (diff -r)."

step "What was done with keys"
show coffer audit verify
tail -n 3 "$demo"/state/audit/*.jsonl | cut -c 1-160 | sed '/./s/^/   /'

stop_service
step "Done"
say "Left for you in $demo: coffer.yaml, cloud/, vault/, state/audit/, safe/escrow.pem." \
	"Remove it all:   rm -rf $demo" "" \
	"Next: docs/runbook.md for your own keys, docs/threat-model.md for what they protect."
