package dirfd

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// List reads directories. Its buffers are used again by the next Read; one
// goroutine uses it at a time.
type List struct {
	buf  []byte
	text []byte
	ends []int
}

const (
	listBuffer = 64 << 10
	// maxKept bounds what a List holds on to after a very large directory.
	maxKept = 1 << 20
)

// Read returns the names in the open directory fd, sorted bytewise. Names for
// which keep (if not nil) returns false are left out; the name that keep is given
// is valid until keep returns.
func (l *List) Read(fd int, keep func(name string, typ uint8) bool) ([]string, error) {
	if l.buf == nil {
		l.buf = make([]byte, listBuffer)
	}
	l.text, l.ends = l.text[:0], l.ends[:0]
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	for {
		n, err := unix.Getdents(fd, l.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		err = ParseDirents(l.buf[:n], func(name []byte, typ uint8) {
			if keep != nil && !keep(unsafe.String(&name[0], len(name)), typ) {
				return
			}
			l.text = append(l.text, name...)
			l.ends = append(l.ends, len(l.text))
		})
		if err != nil {
			return nil, err
		}
	}
	return l.names(), nil
}

// names cuts all names out of one string: two allocations for any number of them.
func (l *List) names() []string {
	if len(l.ends) == 0 {
		return nil
	}
	text := string(l.text)
	names := make([]string, len(l.ends))
	start := 0
	for i, end := range l.ends {
		names[i] = text[start:end]
		start = end
	}
	slices.Sort(names)
	if cap(l.text) > maxKept {
		l.text, l.ends = nil, nil
	}
	return names
}
