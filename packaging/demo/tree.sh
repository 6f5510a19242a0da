# shellcheck shell=bash
# The odd tree of the demo, and how two trees are told apart.

# secret_line is in a file of the tree and must not be readable in the vault.
secret_line='The spare key is under the third flower pot.'

# make_tree DIR: one of everything. What this user may not make is left out.
make_tree() {
	local dir=$1 i part long
	mkdir -p "$dir/deep" "$dir/empty folder" "$dir/names"
	printf 'Dear reader,\n\n%s\n' "$secret_line" >"$dir/letter.txt"
	: >"$dir/empty"
	ln "$dir/letter.txt" "$dir/letter, hard link"
	ln -s letter.txt "$dir/symlink"
	ln -s "../nowhere/at all" "$dir/dangling"
	mkfifo "$dir/a fifo"
	# Data at both ends of 64 MiB, and nothing between.
	printf 'front' >"$dir/sparse"
	truncate -s 64M "$dir/sparse"
	printf 'back' >>"$dir/sparse"
	# Names: spaces, a line break, a dash in front, a leading dot, Latin-1, UTF-8.
	for i in ' two  spaces ' $'line\nbreak' '-rf' '.hidden' $'caf\xe9' 'ring a bell 🔔' $'tab\there' 'back\slash' '*'; do
		printf '%s' "$i" >"$dir/names/$i"
	done
	# A long path: 15 folders with names of 200 letters.
	part=$(printf 'd%.0s' {1..200})
	long=$dir/deep
	for ((i = 0; i < 15; i++)); do
		long=$long/$part
	done
	mkdir -p "$long"
	echo 'a long way down' >"$long/bottom"
	head -c 5000000 /dev/urandom >"$dir/random.bin"
	seq 400000 >"$dir/numbers.txt"
	printf '#!/bin/sh\necho hello\n' >"$dir/program"
	chmod 6755 "$dir/program"
	chmod 0400 "$dir/empty"
	touch -d '1987-06-05 04:03:02.123456789 UTC' "$dir/numbers.txt"
	touch -h -d '2001-02-03 04:05:06.987654321 UTC' "$dir/symlink"
	if command -v setfattr >/dev/null; then
		setfattr -n user.colour -v blue "$dir/letter.txt" || true
		setfattr -n user.bytes -v 0x00ff10 "$dir/empty folder" || true
	fi
	if command -v setfacl >/dev/null; then
		setfacl -m u:65534:r,g:65534:rw "$dir/numbers.txt" || true
		setfacl -d -m u:65534:rx "$dir/empty folder" || true
	fi
	if [ "$(id -u)" = 0 ]; then
		mknod "$dir/null device" c 1 3 || true
		chown 12345:54321 "$dir/random.bin"
	fi
	touch -d '2020-02-02 02:02:02 UTC' "$dir/names" "$dir"
}

# listing DIR: a line per entry with all that find knows of it, and one more per
# device with its number, sorted. A directory's size and link count say nothing
# about its content, and only root can give files away, so only root compares owners.
# Of hard links only those in DIR count: git shares files with clones elsewhere.
listing() {
	local owner=%U:%G
	[ "$(id -u)" = 0 ] || owner=-
	(
		cd "$1" || exit
		find . \( -type d -printf "%p %y %m $owner %T@\0" \) -o -printf "%p %y %m $owner %T@ %s inode=%i %l\0"
		find . \( -type b -o -type c \) -exec stat --printf '%n device %t:%T\0' {} +
	) | LC_ALL=C sort -z | tr '\n\0' '?\n' | LC_ALL=C awk '
		{ line[NR] = $0; at[NR] = match($0, / inode=[0-9]+ /); len[NR] = RLENGTH }
		at[NR] { id[NR] = substr($0, at[NR], len[NR]); names[id[NR]]++ }
		END { for (i = 1; i <= NR; i++) {
			if (at[i]) print substr(line[i], 1, at[i]) "names=" names[id[i]] " " substr(line[i], at[i] + len[i])
			else print line[i]
		} }'
}

# attributes DIR: the extended attributes of every entry, ACLs among them.
attributes() {
	(cd "$1" && find . -print0 | LC_ALL=C sort -z | xargs -0 getfattr --no-dereference --dump --match=- --encoding=hex 2>/dev/null) || true
}
