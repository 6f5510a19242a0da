// Package source is the contract with what can be backed up. A source shows
// itself as a tree of directories and files, whatever it is: a stream is a tree
// of one file.
//
// Invariants:
//   - A session sees one state as well as the source can: where it cannot hold
//     still, File.Changed says so.
//   - Nothing is left out silently: what a source passes over goes to Skip.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cofferbackup/coffer/catalog/tree"
)

// Source is one thing to back up, as configured.
type Source interface {
	// Kind is "files", "stream", ...: the config's word.
	Kind() string
	// Open begins a session. What was passed over is told to report, which may be
	// called concurrently until Close.
	Open(ctx context.Context, report func(Skip)) (Session, error)
}

// Session is a source while it is being read. Its directories may be read
// concurrently.
type Session interface {
	// Root is the top directory. Its own metadata is not kept.
	Root() Dir
	// Owners returns the names of the user and group ids met so far.
	Owners() (users, groups map[uint32]string)
	// Finish says that everything has been read and asks whether it can be relied
	// on: a command that made a stream has ended well. A point is committed only
	// if it returns nil.
	Finish(ctx context.Context) error
	// Close releases everything, also after an error or in the middle.
	Close() error
}

// Dir is an open directory. One goroutine uses it at a time; the files and
// directories opened from it may be used by others meanwhile.
type Dir interface {
	// Names returns the names of the children, sorted bytewise, without what the
	// configuration leaves out.
	Names(ctx context.Context) ([]string, error)
	// Stat describes a child. prev is its node in the last point, or nil. If the
	// child is not a directory and is unchanged since then (size, mtime, ctime,
	// inode and type are equal), same is true and the node is prev itself, or a
	// copy of it in which only Link is new. Otherwise Content and Trees of the
	// result are empty. ErrVanished if it is gone; ErrSkipped if it is not to be
	// kept.
	Stat(ctx context.Context, name string, prev *tree.Node) (node *tree.Node, same bool, err error)
	// Dir opens a child directory. The parent must stay open until the child is closed.
	Dir(ctx context.Context, name string) (Dir, error)
	// Open opens a child file for reading.
	Open(ctx context.Context, name string) (File, error)
	Close() error
}

// Partial is an optional ability of a Dir.
type Partial interface {
	// Partial tells, once the children have been listed and described, whether any
	// was left out: by the configuration, or because it is no thing to keep. A
	// restore that removes what the point does not have must leave such a directory
	// alone. Stat says of a child directory (Node.Partial) only what is known before
	// it is opened.
	Partial() bool
}

// File is an open file: ranges of data with holes between them.
type File interface {
	// NextData moves to the next range of data: its offset and length in bytes.
	// Length -1 means until the end, wherever that will be. What lies between two
	// ranges, and between the last one and the size, is a hole. io.EOF after the
	// last range, with the file's size as off.
	NextData() (off, length int64, err error)
	// Read reads within the current range; io.EOF at its end. A file that has
	// become shorter ends early; Changed will say so.
	io.Reader
	// Changed tells whether the file was changed since it was opened or rewound,
	// and returns its node as it is now (without content). That node, not the one
	// of Dir.Stat, is what goes with the content that was read: the file may have
	// been changed between Stat and Open.
	Changed() (node *tree.Node, changed bool, err error)
	// Rewind goes back to the start, to read a changed file again.
	// errors.ErrUnsupported if the file can be read only once.
	Rewind() error
	Close() error
}

// Skip is something that was passed over, and why.
type Skip struct {
	Path   string // absolute in the source
	Reason string // for people: "permission denied"
	// Fault says that it should have been kept: the job ends "done, with entries
	// skipped". Sockets and excluded file systems are skipped without a fault.
	Fault bool
}

// Errors of a source. Any other error of an entry passes over that entry, with a
// fault.
var (
	// ErrFailed: the source as a whole has failed, and so does the backup. A stream
	// whose reader fails says so.
	ErrFailed = errors.New("source failed")
	// ErrNothing: the source had nothing that could be read, so there is no point.
	ErrNothing = errors.New("nothing could be backed up")
	// ErrVanished: the entry went away between its listing and its reading. No fault.
	ErrVanished = errors.New("entry vanished while it was being read")
	// ErrSkipped: the entry is passed over on purpose (a socket, a file over the
	// size limit) and the source has told report. It is also an ErrVanished, since
	// a caller does the same for both.
	ErrSkipped = fmt.Errorf("entry is not kept: %w", ErrVanished)
)
