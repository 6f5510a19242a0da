// Package target is the contract with where a restore writes.
//
// Invariants:
//   - Nothing is written outside the target, whatever names and symlinks a point
//     contains: names are single components, and no symlink is ever followed.
//   - A file appears under its name only when it is complete.
package target

import (
	"context"
	"errors"
	"io"

	"github.com/cofferbackup/coffer/catalog/tree"
)

// Errors of every target. Those that are not ErrFull, ErrReadOnly or ErrFile are the
// entry's: the caller reports it and goes on.
var (
	// ErrName: the name is not a single path component ("", ".", "..", with "/" or NUL).
	ErrName = errors.New("name is not a single path component")
	// ErrFull: no space left, or over quota. Fatal: everything after it would fail too.
	ErrFull = errors.New("target is full")
	// ErrReadOnly: the file system is read-only. Fatal.
	ErrReadOnly = errors.New("target is read-only")
	// ErrFile: what the target names is no folder. From Open alone.
	ErrFile = errors.New("it is a file")
	// ErrPrivilege: the process may not make such an entry (a device, without root).
	ErrPrivilege = errors.New("not permitted to this process; run the restore as root")
	// ErrInTheWay: what has the name is of another kind than what was asked for,
	// or is a directory where a name was to be replaced. Remove it first.
	ErrInTheWay = errors.New("something else has the name")
)

// Target is a place to restore to, as asked for.
type Target interface {
	// Open begins a session and makes the target's top directory if need be.
	Open(ctx context.Context, opts Options) (Sink, error)
}

// Options of a session.
type Options struct {
	// Users and Groups map the ids of the point to their names there.
	Users, Groups map[uint32]string
	// NumericOwner restores ids as they are, without looking names up here.
	NumericOwner bool
	// DryRun answers as if, and changes nothing.
	DryRun bool
	// Report is told what an entry could not be given although it was restored.
	// It may be called concurrently; nil ignores it.
	Report func(Lack)
}

// Lack is what an entry was restored without: its owner, where the process may
// not change owners; an attribute that the file system does not take.
type Lack struct {
	Path   string // below the target, slash-separated
	Reason string // for people: "owner 1000:1000: operation not permitted"
}

// Sink is a target while it is being written. Different directories and files
// may be used concurrently.
type Sink interface {
	Root() Dir
	// Finish makes everything durable.
	Finish(ctx context.Context) error
	// Close releases everything; files not committed are removed.
	Close() error
}

// Dir is an open directory of the target. It may be used concurrently, except
// for Finish, which comes last.
type Dir interface {
	// Look tells what is there under the name: a node without content (Xattrs and
	// Target included), or nil. A socket, which no point has, is of type 0.
	Look(name string) (*tree.Node, error)
	// Names lists what is there, sorted bytewise, without files that are not
	// committed yet.
	Names() ([]string, error)
	// Dir opens the directory name and makes it if it is not there. The parent
	// must stay open until the child is finished. ErrInTheWay if what is there is
	// not a directory.
	Dir(name string) (Dir, error)
	// Existing opens the file name for comparing; the caller closes it.
	// ErrInTheWay if it is not a file.
	Existing(name string) (Existing, error)
	// Create begins a file that will be called node.Name: Size bytes, all holes.
	Create(node *tree.Node) (File, error)
	// Make makes a symlink, FIFO or device with its metadata, in place of what is
	// there unless that is a directory (ErrInTheWay). ErrPrivilege if only root
	// may make it.
	Make(node *tree.Node) error
	// Link makes name another name of a file that was committed in dir, in place
	// of what is there unless that is a directory.
	Link(name string, dir Dir, old string) error
	// SetMeta gives an existing file or directory child the node's metadata.
	SetMeta(node *tree.Node) error
	// Remove removes the name and, if it is a directory, all below it. It does not
	// cross into another file system.
	Remove(name string) error
	// Finish gives the directory its own metadata (nil leaves it) and closes it.
	Finish(node *tree.Node) error
}

// Existing is a file that is already in the target.
type Existing interface {
	io.ReaderAt
	io.Closer
}

// File is a file being written, under no name yet. WriteAt may be called
// concurrently.
type File interface {
	io.WriterAt
	// Reuse takes length bytes at off from a file that is already there, at the
	// same offset, sharing blocks where the file system can. Old is what Existing
	// returned in the same session.
	Reuse(old Existing, off, length int64) error
	// Commit gives the file its metadata and its name, in place of what is there
	// unless that is a directory.
	Commit() error
	// Abort removes it. No error matters.
	Abort()
}
