#!/bin/sh
# After the files are in place. deb: configure [OLD VERSION]; rpm: 1 (new) or 2 and
# more (upgrade).
set -e

case "$1" in
configure) old=$2 ;;
1) old= ;;
[0-9]*) old=yes ;;
*) exit 0 ;; # deb: an upgrade that was broken off
esac

command -v systemd-sysusers >/dev/null && systemd-sysusers coffer.conf
command -v systemd-tmpfiles >/dev/null && systemd-tmpfiles --create coffer.conf
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# What runs goes on with the new program; jobs stop at a safe point and the next
	# backup goes on there.
	[ -z "$old" ] || systemctl try-restart cofferd.service || true
fi
if [ -z "$old" ]; then
	echo "Coffer is installed and not started. Next:"
	echo "  1. say what to keep, where, under which keys: /etc/coffer/coffer.yaml"
	echo "  2. systemctl enable --now cofferd"
	echo "  3. coffer status"
fi
