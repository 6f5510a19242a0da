package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// BenchmarkUnchanged lists and recognises 100,000 unchanged files in memory.
func BenchmarkUnchanged(b *testing.B) {
	const dirs, perDir = 100, 1000
	top, err := os.MkdirTemp("/dev/shm", "coffer-bench")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(top)
	for i := range dirs * perDir {
		d := filepath.Join(top, fmt.Sprintf("directory-%03d", i/perDir))
		if i%perDir == 0 {
			if err := os.Mkdir(d, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file-%06d.txt", i)), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for name, exclude := range map[string][]string{"plain": nil, "excludes": {"*.tmp", "/cache/", "**/build/*.o"}} {
		b.Run(name, func(b *testing.B) {
			src, err := files.New(files.Config{Paths: []string{top}, Exclude: exclude, Clock: func() time.Time { return time.Now().Add(time.Hour) }})
			if err != nil {
				b.Fatal(err)
			}
			session, err := src.Open(b.Context(), func(source.Skip) {})
			if err != nil {
				b.Fatal(err)
			}
			defer session.Close()
			dev := session.Root()
			for _, name := range []string{"dev", "shm", filepath.Base(top)} {
				if dev, err = dev.Dir(b.Context(), name); err != nil {
					b.Fatal(err)
				}
				defer dev.Close()
			}
			prev := make(map[string]*tree.Node)
			pass(b, dev, prev)
			var before, after runtime.MemStats
			cpu := cpuTime(b)
			runtime.ReadMemStats(&before)
			b.ResetTimer()
			for range b.N {
				if n := pass(b, dev, prev); n != dirs*perDir {
					b.Fatalf("%d files recognised", n)
				}
			}
			b.StopTimer()
			runtime.ReadMemStats(&after)
			n := float64(b.N * dirs * perDir)
			b.ReportMetric(float64(cpuTime(b)-cpu)/n, "cpu-ns/file")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/file")
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/file")
		})
	}
}

// pass walks two levels and returns how many files were the same.
func pass(b *testing.B, top source.Dir, prev map[string]*tree.Node) int {
	ctx := b.Context()
	names, err := top.Names(ctx)
	if err != nil {
		b.Fatal(err)
	}
	count := 0
	for _, name := range names {
		d, err := top.Dir(ctx, name)
		if err != nil {
			b.Fatal(err)
		}
		children, err := d.Names(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, child := range children {
			node, same, err := d.Stat(ctx, child, prev[child])
			if err != nil {
				b.Fatal(err)
			}
			if same {
				count++
			} else {
				prev[child] = node
			}
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return count
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
