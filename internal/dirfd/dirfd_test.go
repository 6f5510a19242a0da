package dirfd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/dirfd"
)

// dirent is one record as the kernel makes it.
func dirent(name string, typ uint8) []byte {
	n := (19 + len(name) + 1 + 7) / 8 * 8
	b := make([]byte, n)
	binary.NativeEndian.PutUint64(b, 77)
	binary.NativeEndian.PutUint16(b[16:], uint16(n))
	b[18] = typ
	copy(b[19:], name)
	return b
}

func TestParseDirents(t *testing.T) {
	long := strings.Repeat("n", 255)
	deleted := dirent("deleted", 8)
	clear(deleted[:8])
	buf := bytes.Join([][]byte{dirent(".", 4), dirent("..", 4), dirent("...", 4), deleted, dirent("\xff", 8), dirent(long, 10)}, nil)
	var got []string
	err := dirfd.ParseDirents(buf, func(name []byte, typ uint8) { got = append(got, string(name)+string('0'+rune(typ))) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"...4", "\xff8", long + ":"}; strings.Join(got, "/") != strings.Join(want, "/") {
		t.Errorf("entries %q, want %q", got, want)
	}
	for cut := 1; cut < len(buf); cut++ {
		n := 0
		err := dirfd.ParseDirents(buf[:cut], func([]byte, uint8) { n++ })
		if err == nil && n == len(got) {
			t.Errorf("cut at %d: all entries are there", cut)
		}
		if err != nil && !errors.Is(err, dirfd.ErrDirent) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func FuzzParseDirents(f *testing.F) {
	f.Add(append(dirent("name", 8), dirent("x", 4)...))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{255}, 40))
	f.Fuzz(func(t *testing.T, buf []byte) {
		total := 0
		err := dirfd.ParseDirents(buf, func(name []byte, _ uint8) {
			if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
				t.Errorf("name %q", name)
			}
			total += len(name)
		})
		if total > len(buf) || err != nil && !errors.Is(err, dirfd.ErrDirent) {
			t.Errorf("%d bytes of names out of %d; %v", total, len(buf), err)
		}
	})
}
