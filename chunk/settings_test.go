package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/restic/chunker"
)

// BenchmarkSettings compares settings of the splitter, for the table in
// docs/performance.md: speed on random bytes, mean chunk, and how much is new
// after 60 insertions into 140 MiB.
func BenchmarkSettings(b *testing.B) {
	const pol = chunker.Pol(0x3DA3358B4DC173)
	rng := rand.NewChaCha8([32]byte{3})
	data := make([]byte, 140<<20)
	rng.Read(data)
	edited := bytes.Clone(data)
	order := rand.New(rng)
	for range 60 {
		at := order.IntN(len(edited))
		edited = append(edited[:at:at], append([]byte("some inserted bytes"), edited[at:]...)...)
	}
	for _, s := range []struct {
		min  uint
		bits int
	}{{512 << 10, 20}, {1 << 20, 19}, {1280 << 10, 18}, {384 << 10, 17}} {
		split := func(data []byte, visit func([]byte)) {
			c := chunker.NewWithBoundaries(bytes.NewReader(data), pol, s.min, 4<<20)
			c.SetAverageBits(s.bits)
			buf := make([]byte, 0, 4<<20)
			for {
				next, err := c.Next(buf)
				if err == io.EOF {
					return
				}
				visit(next.Data)
			}
		}
		b.Run(fmt.Sprintf("min=%dKiB/bits=%d", s.min>>10, s.bits), func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				split(data[:64<<20], func([]byte) {})
			}
			known, chunks, fresh := make(map[[32]byte]bool), 0, 0
			split(data, func(c []byte) { known[sha256.Sum256(c)] = true; chunks++ })
			split(edited, func(c []byte) {
				if !known[sha256.Sum256(c)] {
					fresh += len(c)
				}
			})
			b.ReportMetric(float64(len(data))/float64(chunks)/(1<<20), "MiB/chunk")
			b.ReportMetric(float64(fresh)/(1<<20), "MiB-new")
		})
	}
}
