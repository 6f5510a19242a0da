package prune_test

import (
	"fmt"
	"testing"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
)

// TestWornPackIsUnreadable: a pack that is to be rewritten and cannot be read stays, and
// the rest of the prune is done: whether bytes of it are wrong or missing.
func TestWornPackIsUnreadable(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"flipped": func(raw []byte) []byte { // in each frame
			for i := len(raw) / 16; i < len(raw)*15/16; i += 1000 {
				raw[i] ^= 1
			}
			return raw
		},
		"cut": func(raw []byte) []byte { return raw[:len(raw)/16] },
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{start}
			b := newBench(t, newStore(c), c)
			b.set.retention, b.set.below = &policy.Retention{Last: 1}, 50
			big := map[string][]byte{}
			for i := range 8 {
				big[fmt.Sprint("big", i)] = noise(uint64(i), 1<<20)
			}
			b.files.set("much", big)
			b.mustBackup(t)
			for i := 1; i < 8; i++ {
				big[fmt.Sprint("big", i)] = nil
			}
			b.files.set("little", big)
			b.mustBackup(t)
			b.mustPrune(t)
			b.clock.pass(grace)
			var worn store.Info
			for info, err := range b.store.List(t.Context(), "items/") {
				check(t, err)
				if info.Size > worn.Size {
					worn = info
				}
			}
			check(t, b.store.(*mem.Store).Tamper(worn.Key, spoil))
			if done := b.mustPrune(t); done.RemovedPoints != 1 || done.RepackedPacks != 0 {
				t.Errorf("%+v", done)
			}
			if left := b.objects(t); left["repacks"] != 0 {
				t.Errorf("%v", left)
			}
		})
	}
}
