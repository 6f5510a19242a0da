# What the tours share. Sourced by demo.sh and keyvault.sh, after demo is set to
# their folder and root to the source tree.
# shellcheck shell=bash disable=SC2154

service= # process id of cofferd
number=0 # of the step

step() {
	number=$((number + 1))
	printf '\n%d. %s\n\n' "$number" "$1"
}

say() {
	local line
	for line in "$@"; do
		printf '%s\n' "${line:+   $line}"
	done
}

# typed COMMAND...: print the command as a person would type it, with $DEMO for the
# demo's folder.
typed() {
	local line='' word
	for word in "$@"; do
		case $word in
		'' | *[!A-Za-z0-9_@%+=:,./~-]*) line+=" '${word//\'/\'\\\'\'}'" ;;
		*) line+=" $word" ;;
		esac
	done
	say "\$${line//$demo/\$DEMO}"
}

# show COMMAND...: print the command, then run it.
show() {
	typed "$@"
	"$@" 2>&1 | sed '/./s/^/   /'
	echo
}

# head_of FILE LINES: the first lines of a long output.
head_of() {
	head -n "$2" "$1" | sed '/./s/^/   /'
	local all
	all=$(wc -l <"$1")
	[ "$all" -le "$2" ] || say "... and $((all - $2)) lines more"
	echo
}

stop_service() {
	[ -n "$service" ] || return 0
	kill -TERM "$service" 2>/dev/null || true
	wait "$service" 2>/dev/null || true
	service=
}

# last_act is what a tour does besides when it ends.
last_act() { :; }

finish() {
	local code=$?
	stop_service
	last_act
	if [ "$code" != 0 ]; then
		printf '\nThe tour ended early with code %d.\n' "$code"
		if [ -s "$demo/cofferd.log" ]; then
			echo "The last lines of $demo/cofferd.log:"
			tail -n 8 "$demo/cofferd.log" | sed '/./s/^/   /'
		fi
		echo "All there is to look at: $demo"
	fi
}
trap finish EXIT
trap 'exit 130' INT TERM

start_service() {
	cofferd run --config "$demo/coffer.yaml" >"$demo/cofferd.log" 2>&1 &
	service=$!
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		if coffer status >/dev/null 2>&1; then
			return 0
		fi
		kill -0 "$service" 2>/dev/null || break
		sleep 0.1
	done
	say "cofferd did not come up."
	return 1
}
