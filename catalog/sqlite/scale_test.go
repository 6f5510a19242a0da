//go:build linux

package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// scaleEnv makes TestMain fill and ask an index of so many chunks, and say what it
// cost, in a process of its own.
const scaleEnv = "COFFER_TEST_INDEX_CHUNKS"

// TestScale holds the memory of a process with a large index to its bounds.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("a million chunks take seconds")
	}
	if raced {
		t.Skip("the race detector's memory is not the index's: the run without it measures")
	}
	const chunks = 1_000_000
	cost := runScale(t, chunks)
	t.Logf("%+v", cost)
	if limit := int64(52 << 20); cost.peak-cost.base > limit {
		t.Errorf("%d chunks take %d bytes of memory, more than %d", chunks, cost.peak-cost.base, limit)
	}
	if limit := int64(64); cost.file/chunks > limit {
		t.Errorf("the file has %d bytes per chunk, more than %d", cost.file/chunks, limit)
	}
}

// BenchmarkScale prints what an index costs: go test -bench Scale -benchtime 1x.
func BenchmarkScale(b *testing.B) {
	for _, chunks := range []int{1_000_000, 10_000_000} {
		b.Run(strconv.Itoa(chunks), func(b *testing.B) {
			for b.Loop() {
				cost := runScale(b, chunks)
				b.ReportMetric(float64(cost.peak)/(1<<20), "MiB-peak")
				b.ReportMetric(float64(cost.file)/float64(chunks), "file-bytes/chunk")
				b.ReportMetric(cost.add, "us-cpu/add")
				b.ReportMetric(cost.hitNear, "us-cpu/hit-in-order")
				b.ReportMetric(cost.hitFar, "us-cpu/hit-at-random")
				b.ReportMetric(cost.miss, "us-cpu/miss")
				b.ReportMetric(cost.open, "ms/open")
				b.ReportMetric(cost.first, "us/first-lookups")
			}
		})
	}
}

type scale struct {
	base, peak, file                  int64   // bytes; base is the peak before there is an index
	add, hitNear, hitFar, miss, first float64 // microseconds of CPU each
	open                              float64 // milliseconds
}

func runScale(t testing.TB, chunks int) (s scale) {
	cmd := child(t, scaleEnv, strconv.Itoa(chunks), t.TempDir())
	cmd.Env = append(cmd.Environ(), "GOMEMLIMIT=48MiB") // as the agent, which has a limit too
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(out), &s.base, &s.peak, &s.file, &s.add, &s.hitNear, &s.hitFar, &s.miss, &s.first, &s.open); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return s
}

// scaleMain is a first backup of tiny files: batches of 32,768 chunks, in packs of
// 8,192 and frames of 2,048, each chunk asked for before it is added. Then the file
// is opened again and asked for chunks that it has and chunks that it does not.
func scaleMain(dir string, chunks int) error {
	const batch = 32 << 10
	var s scale
	base, err := peakMemory()
	if err != nil {
		return err
	}
	cfg := sqlite.Config{Path: filepath.Join(dir, "index"), Logger: discard}
	x, err := sqlite.Open(ctx, cfg)
	if err != nil {
		return err
	}
	cpu := timed()
	var making float64
	for at := 0; at < chunks; at += batch {
		making0 := timed()
		var all []pack.Contents
		for p := at; p < min(at+batch, chunks); p += 8 << 10 {
			all = append(all, scalePack(p, min(8<<10, chunks-p)))
		}
		making += making0()
		if err := x.Add(ctx, fmt.Sprint(at), all); err != nil {
			return err
		}
	}
	s.add = (cpu() - making) / float64(chunks)
	if err := x.Close(); err != nil {
		return err
	}
	start := time.Now()
	if x, err = sqlite.Open(ctx, cfg); err != nil {
		return err
	}
	s.open = float64(time.Since(start).Microseconds()) / 1000
	ask := func(n int, want bool, id func(i int) int) float64 {
		cpu := timed()
		for i := range n {
			k := id(i)
			if _, ok, err2 := x.Lookup(ctx, scaleID(k)); ok != want || err2 != nil {
				err = fmt.Errorf("chunk %d: found %v, %w", k, ok, err2)
			}
		}
		return cpu() / float64(n)
	}
	s.first = ask(100, false, func(i int) int { return -1 - i })
	ask(chunks/4, false, func(i int) int { return -1 - i }) // all pages in memory
	s.miss = ask(chunks, false, func(i int) int { return -1 - i })
	s.hitNear = ask(chunks, true, func(i int) int { return i })
	s.hitFar = ask(chunks/4, true, func(i int) int { return i * 7919 % chunks })
	if err != nil {
		return err
	}
	if err := x.Close(); err != nil {
		return err
	}
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return err
	}
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	fmt.Println(base, peak, info.Size(), s.add, s.hitNear, s.hitFar, s.miss, s.first, s.open)
	return nil
}

// peakMemory is how many bytes this process has had in memory at the most.
func peakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kib << 10, err
}

// scaleID makes ids that are as good as random and cost next to nothing.
func scaleID(n int) (id chunk.ID) {
	v := uint64(n)
	for i := range 4 {
		v += 0x9e3779b97f4a7c15 // splitmix64
		z := v
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		for j := range 8 {
			id[8*i+j] = byte(z >> (8 * j))
		}
		v ^= z
	}
	return id
}

func scalePack(first, n int) pack.Contents {
	c := pack.Contents{Pack: pack.ID(scaleIDBytes(first)), Generation: 1}
	for at := 0; at < n; at += 2 << 10 {
		f := pack.Frame{Type: pack.Data, Codec: chunk.Zstd, Stored: 400_000}
		for i := range min(2<<10, n-at) {
			f.Chunks = append(f.Chunks, pack.Chunk{ID: scaleID(first + at + i), Length: 500})
			f.Raw += 500
		}
		c.Frames = append(c.Frames, f)
	}
	return c
}

func scaleIDBytes(n int) []byte { id := scaleID(n); return id[16:] }

// timed starts to measure; the result returns microseconds of CPU of this process.
func timed() func() float64 {
	now := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			panic(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := now()
	return func() float64 { return float64(now()-start) / 1000 }
}
