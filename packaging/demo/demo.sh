#!/usr/bin/env bash
# A tour of Coffer on this machine: a key in an HSM, a vault, backups, what is kept of
# them, restores, and a comparison of every byte. make demo builds the programs and runs it.
#
# Everything happens in one folder below /tmp, which is kept for a look around;
# nothing of the system is touched. It ends with 0 only if what was restored is
# what was backed up.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
for program in cofferd coffer; do
	if [ ! -x "$root/bin/$program" ]; then
		echo "demo: $root/bin/$program is not there; make demo builds it" >&2
		exit 1
	fi
done
demo=$(mktemp -d "${TMPDIR:-/tmp}/coffer-demo.XXXXXX")
# shellcheck source=packaging/demo/tree.sh
source "$root/packaging/demo/tree.sh"
export PATH=$root/bin:$PATH COFFER_SOCKET=$demo/coffer.sock

# shellcheck source=packaging/demo/tour.sh
source "$root/packaging/demo/tour.sh"

owners=  # what only root can compare
[ "$(id -u)" != 0 ] || owners="owners, "

# softhsm_module prints where the HSM's library is, or fails.
softhsm_module() {
	local path
	for path in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
		if [ -e "$path" ]; then
			echo "$path"
			return 0
		fi
	done
	return 1
}

# choose_key sets uri and kind: a SoftHSM token if there is one to be had, and
# cofferd was built with cgo; otherwise a key in a file.
choose_key() {
	local module
	uri="file://$demo/kek.pem" kind="a key file"
	if [ "$(go version -m "$root/bin/cofferd" 2>/dev/null | grep -c 'CGO_ENABLED=1')" = 0 ]; then
		say "cofferd was built without a C compiler, so it cannot drive an HSM: the key will be" \
			"a file of mode 0600. With gcc and libc6-dev installed, the demo takes SoftHSM."
	elif ! command -v softhsm2-util >/dev/null || ! module=$(softhsm_module); then
		say "SoftHSM is not on this machine: the key will be a file of mode 0600." \
			"To see an HSM: sudo apt-get install softhsm2, then make demo again."
	else
		uri="pkcs11:token=coffer-demo;object=coffer-kek?module-path=$module&pin-source=file:$demo/pin"
		kind="an HSM (SoftHSM)"
	fi
}

make_token() {
	mkdir "$demo/tokens"
	printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$demo/tokens" >"$demo/softhsm2.conf"
	export SOFTHSM2_CONF=$demo/softhsm2.conf
	(
		umask 077
		od -An -N4 -tu4 /dev/urandom | tr -d ' \n' >"$demo/pin"
		od -An -N8 -tu8 /dev/urandom | tr -d ' \n' >"$demo/so-pin"
	)
	say "\$ softhsm2-util --init-token --free --label coffer-demo --pin ... --so-pin ..."
	softhsm2-util --init-token --free --label coffer-demo \
		--pin "$(cat "$demo/pin")" --so-pin "$(cat "$demo/so-pin")" | sed '/./s/^/   /'
	say "The PIN is random and lies in \$DEMO/pin, mode 0600. The config only points to it." ""
}

write_config() {
	cat >"$demo/coffer.yaml" <<-END
		agent:
		  state: $demo/state
		  socket: $demo/coffer.sock
		keys:
		  main: {uri: "$uri"}
		vaults:
		  local:
		    store: "file://$demo/vault"
		    keys: [main]
		    prune: {schedule: daily at 12:00}
		items:
		  project: {vault: local, files: {paths: ["$root"]}}
		  odds: {vault: local, files: {paths: ["$demo/odds"]}}
		policies:
		  nightly:
		    items: [project, odds]
		    schedule: daily at 02:00
		    retention: {last: 1, daily: 7, weekly: 4, monthly: 12}
	END
	mkdir -m 0700 "$demo/vault"
}

# compare NAME SOURCE: hold what was restored against what was backed up.
compare() {
	local name=$1 source=$2 back=$demo/restored/$1$2
	say "$name:"
	diff --recursive --no-dereference --exclude='a fifo' --exclude='null device' "$source" "$back"
	say "  content: equal, file by file (diff -r --no-dereference)"
	listing "$source" >"$demo/$name.want"
	listing "$back" >"$demo/$name.got"
	diff --text "$demo/$name.want" "$demo/$name.got"
	say "  types, modes, ${owners}nanosecond times, sizes, links: equal for $(wc -l <"$demo/$name.want") entries"
	if command -v getfattr >/dev/null; then
		attributes "$source" >"$demo/$name.want-xattrs"
		attributes "$back" >"$demo/$name.got-xattrs"
		diff --text "$demo/$name.want-xattrs" "$demo/$name.got-xattrs"
		say "  extended attributes and ACLs: equal ($(grep -ac '^[a-z]*\.' "$demo/$name.want-xattrs" || true) of them)"
	fi
}

echo "Coffer, a tour. Everything happens in $demo, called \$DEMO below."

step "A key of your own"
choose_key
case $uri in
pkcs11:*) make_token ;;
esac
write_config
say "One file says what is kept, where, and under which key:"
echo
sed 's/^/   | /' "$demo/coffer.yaml"

step "The service"
say "\$ cofferd run --config \$DEMO/coffer.yaml &" ""
start_service
say "It answers on a socket that only you can open. COFFER_SOCKET tells coffer where:" "" \
	"\$ export COFFER_SOCKET=\$DEMO/coffer.sock" ""
say "The key does not exist yet. It is made in $kind, and its private half stays there:" ""
show coffer key create main
show coffer key list

step "A vault"
say "A vault is a folder or a bucket. Its id is a commitment to its keys: nobody can put" \
	"another vault in its place. The sheet below belongs on paper." ""
show coffer vault create local

step "Two things to keep"
make_tree "$demo/odds"
say "project  this source tree, $(find "$root" -type f | wc -l) files" \
	"odds     one of everything that a Linux folder can hold:" ""
(cd "$demo" && ls -lAb --time-style=+ odds odds/names) >"$demo/odds.ls"
head_of "$demo/odds.ls" 40

step "First backups"
show coffer backup project
show coffer backup odds

step "Again, with nothing changed"
say "Unchanged files are known by size, times and inode, and are not read." ""
show coffer backup project
show coffer backup odds

step "What there is now"
show coffer status
show coffer point list
show coffer point ls odds "$demo/odds" --shallow

step "What is kept, and for how long"
say "The policy backs up by itself at night. Of the points of one day it keeps the newest," \
	"and it says of each why it stays or goes:" ""
show coffer policy explain nightly
say "Nothing is removed at once. A prune marks what is let go, and what was marked goes" \
	"three days later. A dry run only says what it would do. It frees nothing here, because" \
	"the newer points need the same data:" ""
show coffer prune --dry-run
say "A hold keeps a point whatever the policy says, until it is released:" ""
first=$(coffer point list odds | awk 'NR == 2 { print $2 }')
show coffer point hold "odds@$first" --owner legal --reason "case 4711"
show coffer point list odds

step "What the keeper of the storage sees"
say "The vault, as someone who stole it would find it:" ""
(cd "$demo" && find vault -type f -printf '%10s  %p\n' | sort -k 2) >"$demo/vault.ls"
head_of "$demo/vault.ls" 10
pack=$(find "$demo/vault" -type f -path '*/packs/*' -size +0 | sort | head -n 1)
say "\$ head -c 96 ${pack/$demo/\$DEMO} | od -A d -t x1z"
head -c 96 "$pack" | od -A d -t x1z | sed '/./s/^/   /'
echo
if grep -raqF -e "$secret_line" -e 'ring a bell' "$demo/vault"; then
	say "A sentence of a file, or a file name, can be read in the vault. That must not be."
	exit 1
fi
say "No file name and no sentence of any file is to be found in it (grep -ra)."

step "Restore both to an empty folder"
show coffer restore project "$demo/restored/project"
show coffer restore odds "$demo/restored/odds"

step "Compare"
compare project "$root"
compare odds "$demo/odds"
hole=$(du -k "$demo/restored/odds$demo/odds/sparse" | cut -f 1)
say "  a hole of 64 MiB takes $hole KiB on disk; before, it took $(du -k "$demo/odds/sparse" | cut -f 1) KiB"
[ "$hole" -lt 1024 ]

step "One file, straight to standard output"
show coffer cat odds "$demo/odds/letter.txt"
coffer cat odds "$demo/odds/letter.txt" | cmp - "$demo/odds/letter.txt"

step "Read everything back once more, and check it"
show coffer verify project
show coffer verify odds

stop_service
step "Done"
say "The key was in $kind. Two items were backed up twice, restored and compared:" \
	"no difference. The service has been stopped. Left for you in $demo:" "" \
	"  coffer.yaml    the configuration, a good start for your own" \
	"  vault/         what would lie in object storage" \
	"  restored/      what came back" \
	"  cofferd.log    what the service said" "" \
	"Start it again:  ${SOFTHSM2_CONF:+SOFTHSM2_CONF=$SOFTHSM2_CONF }bin/cofferd run --config $demo/coffer.yaml" \
	"Talk to it:      COFFER_SOCKET=$demo/coffer.sock bin/coffer status" \
	"Remove it all:   rm -rf $demo" "" \
	"Next: README.md for your own configuration, docs/install.md for the service," \
	"docs/format.md for what is in a vault."
