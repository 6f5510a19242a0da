package prune_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// stateFile names the state that the files are in.
const stateFile = "state"

// memoryFiles is a source in memory: a folder of files.
type memoryFiles struct {
	files map[string]memoryFile
	made  *map[string]map[string][]byte // every state that there was, by its name
	turn  *int64                        // no two versions of a file look alike, whichever host wrote them
}

type memoryFile struct {
	data    []byte
	version int64
}

func newFiles() *memoryFiles {
	made := make(map[string]map[string][]byte)
	f := &memoryFiles{files: make(map[string]memoryFile), made: &made, turn: new(int64)}
	f.set("first", nil)
	return f
}

// clone has the same files, and remembers states in the same place.
func (f *memoryFiles) clone() *memoryFiles {
	return &memoryFiles{files: maps.Clone(f.files), made: f.made, turn: f.turn}
}

// set writes files, and removes those that are nil. name is what the state is called.
func (f *memoryFiles) set(name string, change map[string][]byte) {
	*f.turn++
	for file, data := range change {
		if data == nil {
			delete(f.files, file)
		} else {
			f.files[file] = memoryFile{data, *f.turn}
		}
	}
	f.files[stateFile] = memoryFile{[]byte(name), *f.turn}
	state := make(map[string][]byte)
	for file, m := range f.files {
		state[file] = m.data
	}
	(*f.made)[name] = state
}

// noise is bytes that do not compress, the same for one seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

func (f *memoryFiles) Kind() string { return "files" }

func (f *memoryFiles) Open(context.Context, func(source.Skip)) (source.Session, error) {
	return memorySession{maps.Clone(f.files)}, nil
}

type memorySession struct{ files map[string]memoryFile }

func (s memorySession) Root() source.Dir                          { return s }
func (s memorySession) Owners() (users, groups map[uint32]string) { return nil, nil }
func (s memorySession) Finish(context.Context) error              { return nil }
func (s memorySession) Close() error                              { return nil }
func (s memorySession) Names(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(s.files)), nil
}
func (s memorySession) Dir(context.Context, string) (source.Dir, error) {
	return nil, errors.New("there are no folders")
}

func (s memorySession) Stat(_ context.Context, name string, prev *tree.Node) (*tree.Node, bool, error) {
	f := s.files[name]
	node := &tree.Node{Name: name, Type: tree.File, Mode: 0o600, MTime: tree.Time{Sec: f.version}, Size: uint64(len(f.data))}
	if prev != nil && prev.MTime == node.MTime && prev.Size == node.Size {
		return prev, true, nil
	}
	return node, false, nil
}

func (s memorySession) Open(_ context.Context, name string) (source.File, error) {
	f := s.files[name]
	node := &tree.Node{Name: name, Type: tree.File, Mode: 0o600, MTime: tree.Time{Sec: f.version}, Size: uint64(len(f.data))}
	return &openFile{Reader: bytes.NewReader(f.data), node: node}, nil
}

type openFile struct {
	*bytes.Reader
	node *tree.Node
	read bool
}

func (f *openFile) NextData() (off, length int64, err error) {
	if f.read || f.node.Size == 0 {
		return int64(f.node.Size), 0, io.EOF
	}
	f.read = true
	return 0, int64(f.node.Size), nil
}

func (f *openFile) Changed() (*tree.Node, bool, error) { return f.node, false, nil }
func (f *openFile) Rewind() error                      { return errors.ErrUnsupported }
func (f *openFile) Close() error                       { return nil }
