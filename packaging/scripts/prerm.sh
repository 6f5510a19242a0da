#!/bin/sh
# Before the files go. deb: remove, or upgrade NEW VERSION; rpm: 0 (removed) or 1
# (upgrade). An upgrade leaves the service running, and restarts it after.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl --quiet disable --now coffer.socket cofferd.service || true
	fi
	;;
esac
