#!/bin/sh
# The Coffer backup service where System V's scripts start what runs. "cofferd install"
# puts it there, and "cofferd uninstall" takes it away. It starts the service with the
# host and stops it in time; one that dies is not started again.
#
# chkconfig: 2345 90 10
# description: Coffer backup service
### BEGIN INIT INFO
# Provides:          cofferd
# Required-Start:    $local_fs $remote_fs
# Required-Stop:     $local_fs $remote_fs
# Should-Start:      $network $named $time pcscd pkcsslotd
# Should-Stop:       $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: Coffer backup service
### END INIT INFO

program=/usr/bin/cofferd
config=/etc/coffer/coffer.yaml
pid_file=/run/cofferd.pid
log=/var/log/cofferd.log
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 077

# running sets pid if the process that was started is there, and no other has its number.
running() {
	pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] &&
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$(basename "$program" | cut -c 1-15)" ]
}

start() {
	if running; then
		return 0
	fi
	setsid "$program" run --config "$config" </dev/null >>"$log" 2>&1 &
	echo $! >"$pid_file"
	chmod 644 "$pid_file" # anybody may ask for the status
	# What is wrong with a configuration is found at once.
	for _ in 1 2; do
		sleep 1
		if ! running; then
			rm -f "$pid_file"
			echo "cofferd ended; what it said is in $log:" >&2
			tail -n 3 "$log" >&2
			return 1
		fi
	done
}

# stop waits until jobs are at a safe point, which takes 20 seconds at the most.
stop() {
	if running; then
		kill "$pid"
		left=30
		while running; do
			case $left in
			0) kill -KILL "$pid" ;;
			-5) return 1 ;;
			esac
			left=$((left - 1))
			sleep 1
		done
	fi
	rm -f "$pid_file"
}

case "$1" in
start) start ;;
stop) stop ;;
restart | force-reload) stop && start ;;
reload) running && kill -HUP "$pid" ;;
status)
	if running; then
		echo Running
	else
		echo Stopped
		exit 3
	fi
	;;
*)
	echo "usage: $0 start|stop|restart|reload|status" >&2
	exit 2
	;;
esac
