package pack_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

var item = crypt.ItemID{1, 2, 3}

// secrets are those of an item by generation.
type secrets map[uint32]*crypt.Secret

var errNoSecret = errors.New("no such generation")

func (s secrets) Secret(_ context.Context, generation uint32) (*crypt.Secret, error) {
	if secret, ok := s[generation]; ok {
		return secret, nil
	}
	return nil, errNoSecret
}

func random(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// frame describes raw as one frame of chunks of at most size bytes.
func frame(t testing.TB, s *crypt.Secret, typ pack.FrameType, raw []byte, size int) pack.Frame {
	f := pack.Frame{Type: typ, Raw: uint32(len(raw))}
	t.Helper()
	namer, err := s.Namer()
	check(t, err)
	for part := range slices.Chunk(raw, size) {
		f.Chunks = append(f.Chunks, pack.Chunk{ID: namer.ID(part), Length: uint32(len(part))})
	}
	return f
}

// fill seals frames into a pack and returns its bytes.
func fill(t testing.TB, s *crypt.Secret, generation uint32, frames ...[]byte) ([]byte, pack.Contents) {
	t.Helper()
	b := pack.NewBuilder(s, item, generation, nil)
	for i, raw := range frames {
		slot, ok := b.Reserve(frame(t, s, pack.FrameType(1+i%3), raw, 100), len(raw))
		if !ok {
			t.Fatal("the pack is full")
		}
		_, last, err := slot.Seal(raw, nil)
		check(t, err)
		if last {
			t.Fatal("an open pack has had its last frame")
		}
	}
	if !b.Close() {
		t.Fatal("a pack without open frames is not done")
	}
	body, contents, err := b.Finish()
	check(t, err)
	return slices.Concat(body...), contents
}

// put puts an object where the pack called id is.
func put(t testing.TB, id pack.ID, object []byte) *mem.Store {
	t.Helper()
	st := mem.New(mem.Config{})
	check(t, st.Put(t.Context(), pack.Key(item, id), store.Body{object}, store.PutOptions{}))
	return st
}

// readAll reads every chunk of a pack and checks it against its id.
func readAll(t testing.TB, r *pack.Reader, s *crypt.Secret, c pack.Contents) []byte {
	t.Helper()
	var all []byte
	namer, err := s.Namer()
	check(t, err)
	c.Locations(func(id chunk.ID, loc pack.Location) bool {
		raw, err := r.Frame(t.Context(), loc, nil)
		check(t, err)
		data := raw[loc.Offset:][:loc.Length]
		if namer.ID(data) != id {
			t.Fatalf("chunk at %+v is another", loc)
		}
		all = append(all, data...)
		return true
	})
	return all
}
