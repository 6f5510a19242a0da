package doctor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
)

// Room in a state folder, below which it is short, and too little.
const (
	shortBytes = 1 << 30
	leastBytes = 64 << 20
	shortNodes = 10_000
	leastNodes = 500
)

// Folder looks at a folder of the agent's own: whose it is, whether it can be written
// to and kept, and how much room there is.
func Folder(path string) []control.Check {
	info, err := os.Stat(path)
	if err != nil {
		return []control.Check{Bad("folder", "make it, or correct agent.state in the config", "%v", err)}
	}
	if !info.IsDir() {
		return []control.Check{Bad("folder", "move it away, or correct agent.state in the config", "%s is not a folder", path)}
	}
	out := []control.Check{guarded("owner and mode", path, info, 0o077, "chmod 700 "+path)}
	out = append(out, written(path))
	return append(out, roomIn(path)...)
}

// Room looks at what can be seen of a folder of the agent's own without a change: whether
// it may be written to, and how much room there is.
func Room(path string) []control.Check {
	if err := writable(path); err != nil {
		return []control.Check{Bad("write", "see that its disk is mounted for writing, and is well: dmesg", "it cannot be written to: %v", err)}
	}
	return roomIn(path)
}

// written tries to write a file, to have it on disk, and to remove it.
func written(path string) control.Check {
	const what = "write"
	next := "see that the disk is mounted for writing, is not full, and is well: dmesg"
	if err := tryFile(path); err != nil {
		return Bad(what, next, "%v", err)
	}
	return Good(what, "a file was written, kept on disk and removed")
}

// tryFile writes a file into a folder, has it on disk, and removes it.
func tryFile(folder string) error {
	f, err := os.CreateTemp(folder, ".doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close())
}

// roomIn looks at how much room the disk of a folder has.
func roomIn(path string) []control.Check {
	bytes, nodes, err := room(path)
	if err != nil {
		return []control.Check{Warning("room", "see whether the disk answers: df "+path, "%v", err)}
	}
	grade := func(what, says string, have, short, least uint64) control.Check {
		switch next := "make room on its disk: without any, nothing can be recorded and keys are not used"; {
		case have < least:
			return Bad(what, next, "%s", says)
		case have < short:
			return Warning(what, next, "%s", says)
		}
		return Good(what, "%s", says)
	}
	out := []control.Check{grade("room", fmt.Sprintf("%d MiB free", bytes>>20), bytes, shortBytes, leastBytes)}
	if nodes != unlimited {
		out = append(out, grade("inodes", fmt.Sprintf("%d free", nodes), nodes, shortNodes, leastNodes))
	}
	return out
}

// unlimited inodes: the file system makes them as it needs them.
const unlimited = ^uint64(0)

// ConfigFile looks at who can change the configuration, and so what the agent runs.
func ConfigFile(path string) control.Check {
	info, err := os.Stat(path)
	if err != nil {
		return Bad("owner and mode", "put it back: the agent does not start without it", "%v", err)
	}
	return guarded("owner and mode", path, info, 0o022, "chmod go-w "+path)
}

// Socket looks at the agent's own socket: that it is there, and who could put another in
// its place.
func Socket(path string) []control.Check {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return []control.Check{Bad("socket", "restart the agent: cofferd restart", "%v", err)}
	case info.Mode().Type() != fs.ModeSocket:
		return []control.Check{Bad("socket", "move it away, and restart the agent", "%s is not a socket", path)}
	}
	out := []control.Check{Good("socket", "%s, mode %04o%s", path, info.Mode().Perm(), ownedBy(info))}
	folder := filepath.Dir(path)
	parent, err := os.Stat(folder)
	if err != nil {
		return append(out, Bad("folder", "see who may enter it", "%v", err))
	}
	return append(out, guarded("folder", folder, parent, 0o022, "chmod go-w "+folder))
}

// Program looks at a program that the agent runs: that it can be run, and that nobody
// else can change what it does.
func Program(path string) control.Check {
	const what = "program"
	info, err := os.Stat(path)
	if err != nil {
		return Bad(what, "put it there, or correct the config", "%v", err)
	}
	if !info.Mode().IsRegular() || !runnable(info) {
		return Bad(what, "chmod 755 "+path, "%s cannot be run", path)
	}
	if c := guarded(what, path, info, 0o022, "chmod go-w "+path); c.Outcome != control.CheckGood {
		return c
	}
	folder := filepath.Dir(path)
	if parent, err := os.Stat(folder); err == nil && parent.Mode()&fs.ModeSticky == 0 {
		if c := guarded(what, folder, parent, 0o022, "chmod go-w "+folder); c.Outcome != control.CheckGood {
			return c
		}
	}
	return Good(what, "%s can be run, and changed by nobody else", path)
}

// Source looks at a path that is backed up: that it is there, and can be read.
func Source(path string) control.Check {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return Bad(path, "run the agent as root, or give it CAP_DAC_READ_SEARCH", "%v", err)
	}
	if err != nil {
		return Bad(path, "put it back, or take it out of the item's paths", "%v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		_, err = f.Readdirnames(1)
		if errors.Is(err, io.EOF) {
			return Warning(path, "see whether something should be mounted there", "it is empty")
		}
	}
	if err != nil {
		return Bad(path, "see whether its disk answers", "%v", err)
	}
	return Good(path, "it can be read")
}

// guarded says whether a file or folder is the agent's, or root's, and has none of the
// mode bits that it must not have.
func guarded(what, path string, info fs.FileInfo, forbidden fs.FileMode, mend string) control.Check {
	if !hasModes {
		return Skipped(what, "there are no modes on this system")
	}
	if owner, ok := foreign(info); ok {
		return Bad(what, fmt.Sprintf("chown root %s, if what is in it is what it should be", path), "%s belongs to uid %d, who can change it", path, owner)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		verb := "reached"
		if forbidden == 0o022 {
			verb = "changed"
		}
		return Bad(what, mend, "%s has mode %04o, so it can be %s by others", path, mode, verb)
	}
	return Good(what, "%s, mode %04o%s", path, info.Mode().Perm(), ownedBy(info))
}

// Secret looks at whether a secret that the config names can be read, by the agent alone.
// read returns it; it is zeroed.
func Secret(ref string, read func(ref string) ([]byte, error)) control.Check {
	text, err := read(ref)
	clear(text)
	kind, _, _ := strings.Cut(ref, ":")
	if err != nil {
		next := "put it there; the file needs an owner that is the agent's user or root, and mode 0600"
		if kind == "env" {
			next = "set it in the environment of the service, and restart it"
		}
		return Bad(ref, next, "%v", err)
	}
	return Good(ref, "it can be read, by the agent alone")
}
