package files_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/restore/target/files"
)

// BenchmarkTinyFiles restores files of 500 bytes into memory, 1000 to a directory.
func BenchmarkTinyFiles(b *testing.B) {
	const perDir = 1000
	top, err := os.MkdirTemp("/dev/shm", "coffer-bench")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(top)
	tgt, err := files.New(files.Config{Path: top})
	if err != nil {
		b.Fatal(err)
	}
	s, err := tgt.Open(b.Context(), target.Options{Users: map[uint32]string{0: "root"}, Groups: map[uint32]string{0: "root"}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	names := make([]string, perDir)
	for i := range names {
		names[i] = fmt.Sprintf("file-%06d.txt", i)
	}
	n := tree.Node{Type: tree.File, Mode: 0o644, Size: 500, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), MTime: tree.Time{Sec: 1_600_000_000}}
	data := make([]byte, 500)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime(b)
	root := s.Root()
	var d target.Dir
	b.ResetTimer()
	for i := range b.N {
		if i%perDir == 0 {
			if d, err = root.Dir(fmt.Sprint(i)); err != nil {
				b.Fatal(err)
			}
		}
		n.Name = names[i%perDir]
		f, err := d.Create(&n)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Commit(); err != nil {
			b.Fatal(err)
		}
		if i%perDir == perDir-1 {
			if err := d.Finish(nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/file")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/file")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N), "B/file")
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
