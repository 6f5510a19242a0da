#!/bin/sh
# After the files are gone. deb: remove, purge and more; rpm: 0 (removed) or 1
# (upgrade). No backup and no key is ever removed, wherever it is.
set -e

case "$1" in
remove | 0)
	rm -rf /run/coffer
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	;;
purge)
	state=/var/lib/coffer
	# What the agent keeps for itself, by name, and only where no vault was put among
	# it: a folder with the file "vault" is one.
	for path in "$state"/*.json "$state"/*.json.damaged "$state"/lock "$state"/floors "$state"/audit "$state"/index "$state"/jobs; do
		[ -e "$path" ] || continue
		if [ -z "$(find "$path" -type f -name vault -print -quit)" ]; then
			rm -rf --one-file-system "$path"
		fi
	done
	rm -rf /etc/systemd/system/cofferd.service.d/backup-only.conf
	rmdir --ignore-fail-on-non-empty /etc/systemd/system/cofferd.service.d 2>/dev/null || true
	for dir in "$state" /etc/coffer; do
		[ -d "$dir" ] || continue
		rmdir --ignore-fail-on-non-empty "$dir"
		if [ -d "$dir" ]; then
			echo "Kept, for it is not the package's, and may be backups or keys:"
			find "$dir" -mindepth 1 -maxdepth 1 | sort | sed 's/^/  /'
		fi
	done
	;;
esac
