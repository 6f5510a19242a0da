package pack_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// TestManyWriters fills packs from many goroutines at once, as a backup does, and
// reads them back.
func TestManyWriters(t *testing.T) {
	s := crypt.NewSecret()
	b := pack.NewBuilder(s, item, 1, make([]byte, pack.TargetSize))
	var wg sync.WaitGroup
	finished := make(chan *pack.Builder, 100)
	for w := range 8 {
		wg.Go(func() {
			c, scratch := chunk.NewCompressor(chunk.Fastest), []byte(nil)
			for i := range 40 {
				raw := bytes.Repeat(fmt.Appendf(nil, "writer %d frame %d ", w, i), 500)
				if i%3 == 0 {
					raw = random(1000+i, byte(w))
				}
				f := frame(t, s, pack.Data, raw, 700)
				compressed, codec := c.Compress(nil, raw)
				f.Codec = codec
				slot, ok := b.Reserve(f, len(compressed))
				if !ok {
					t.Error("the pack is full")
					return
				}
				var last bool
				var err error
				scratch, last, err = slot.Seal(compressed, scratch)
				if err != nil {
					t.Error(err)
				}
				if last {
					finished <- slot.Pack()
				}
			}
		})
	}
	wg.Wait()
	if b.Close() {
		finished <- b
	}
	if len(finished) != 1 || <-finished != b {
		t.Fatal("nobody, or more than one, was told to finish the pack")
	}
	body, contents, err := b.Finish()
	check(t, err)
	object := slices.Concat(body...)
	if _, err := pack.Scrub(object); err != nil {
		t.Error(err)
	}
	r := pack.NewReader(put(t, contents.Pack, object), secrets{1: s}, item)
	got, err := r.Contents(t.Context(), contents.Pack)
	if err != nil || !got.Equal(contents) || len(got.Frames) != 320 {
		t.Fatalf("%d frames, %v", len(got.Frames), err)
	}
	all := readAll(t, r, s, got)
	for w := range 8 {
		for i := range 40 {
			want := fmt.Appendf(nil, "writer %d frame %d ", w, i)
			if i%3 == 0 {
				want = random(1000+i, byte(w))
			}
			if !bytes.Contains(all, want) {
				t.Errorf("frame %d of writer %d is missing", i, w)
			}
		}
	}
}

// TestLastSeal: a pack that is closed while frames are open is finished by who
// seals the last of them, and nobody else.
func TestLastSeal(t *testing.T) {
	s := crypt.NewSecret()
	b := pack.NewBuilder(s, item, 1, nil)
	raw := random(100, 1)
	var slots []pack.Slot
	for range 16 {
		slot, ok := b.Reserve(frame(t, s, pack.Data, raw, 100), len(raw))
		if !ok {
			t.Fatal("full")
		}
		slots = append(slots, slot)
	}
	if b.Close() {
		t.Error("a pack with open frames is done")
	}
	if _, ok := b.Reserve(frame(t, s, pack.Data, raw, 100), len(raw)); ok {
		t.Error("a closed pack takes a frame")
	}
	if _, _, err := b.Finish(); err == nil {
		t.Error("a pack is finished while frames are open")
	}
	var wg sync.WaitGroup
	told := make(chan bool, len(slots))
	for _, slot := range slots {
		wg.Go(func() {
			if _, last, err := slot.Seal(raw, nil); err != nil || last {
				told <- err == nil
			}
		})
	}
	wg.Wait()
	if len(told) != 1 || !<-told {
		t.Error("not exactly one sealed the last frame")
	}
	if _, c, err := b.Finish(); err != nil || len(c.Frames) != 16 {
		t.Errorf("%d frames, %v", len(c.Frames), err)
	}
}

func TestFullPack(t *testing.T) {
	s := crypt.NewSecret()
	b := pack.NewBuilder(s, item, 1, nil)
	big := pack.Frame{Type: pack.Data, Raw: 15 << 20, Chunks: []pack.Chunk{{Length: 8 << 20}, {Length: 7 << 20}}}
	if _, ok := b.Reserve(big, 15<<20); !ok {
		t.Fatal("an empty pack does not take 15 MiB")
	}
	if _, ok := b.Reserve(big, 2<<20); ok {
		t.Error("a pack of 15 MiB takes 2 MiB more")
	}
	if _, ok := b.Reserve(frame(t, s, pack.Data, []byte("a"), 1), 1); ok {
		t.Error("a full pack takes more")
	}

	raw := random(chunk.MaxFrame, 1)
	b = pack.NewBuilder(s, item, 1, nil)
	slot, ok := b.Reserve(frame(t, s, pack.Data, raw, chunk.MaxSize), len(raw))
	if !ok {
		t.Fatal("an empty pack does not take the largest frame")
	}
	_, _, err := slot.Seal(raw, nil)
	check(t, err)
	b.Close()
	body, c, err := b.Finish()
	check(t, err)
	r := pack.NewReader(put(t, c.Pack, slices.Concat(body...)), secrets{1: s}, item)
	if all := readAll(t, r, s, c); !bytes.Equal(all, raw) {
		t.Error("the largest frame does not come back")
	}
}

func TestSealIntoAWrongSlot(t *testing.T) {
	s := crypt.NewSecret()
	slot, _ := pack.NewBuilder(s, item, 1, nil).Reserve(frame(t, s, pack.Data, random(10, 1), 10), 10)
	for _, n := range []int{0, 9, 11, 1000} {
		if _, last, err := slot.Seal(random(n, 1), nil); err == nil || last {
			t.Errorf("%d bytes are sealed into a slot of 10", n)
		}
	}
}

func TestLocations(t *testing.T) {
	c := pack.Contents{Pack: pack.ID{9}, Generation: 4, Frames: []pack.Frame{
		{Type: pack.Data, Codec: chunk.Zstd, Stored: 100, Raw: 30, Chunks: []pack.Chunk{{ID: chunk.ID{1}, Length: 10}, {ID: chunk.ID{2}, Length: 20}}},
		{Type: pack.Tree, Stored: 50, Raw: 22, Chunks: []pack.Chunk{{ID: chunk.ID{3}, Length: 22}}},
	}}
	first := pack.Location{Pack: pack.ID{9}, Generation: 4, Type: pack.Data, Codec: chunk.Zstd, Frame: 0, At: 96, Stored: 100, Raw: 30, Offset: 0, Length: 10}
	second := first
	second.Offset, second.Length = 10, 20
	third := pack.Location{Pack: pack.ID{9}, Generation: 4, Type: pack.Tree, Frame: 1, At: 196, Stored: 50, Raw: 22, Offset: 0, Length: 22}
	var got []pack.Location
	for id, loc := range c.Locations {
		if got = append(got, loc); id != (chunk.ID{byte(len(got))}) {
			t.Errorf("chunk %d is %v", len(got), id)
		}
	}
	if want := []pack.Location{first, second, third}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for id := range c.Locations {
		if id != (chunk.ID{1}) {
			t.Error("it goes on after it was told to stop")
		}
		break
	}
}

func TestContentsEqual(t *testing.T) {
	make := func() pack.Contents {
		return pack.Contents{Pack: pack.ID{1}, Generation: 1, Frames: []pack.Frame{{Type: 1, Codec: 1, Stored: 40, Raw: 5, Chunks: []pack.Chunk{{ID: chunk.ID{1}, Length: 5}}}}}
	}
	if !make().Equal(make()) {
		t.Error("equal contents are not equal")
	}
	for name, change := range map[string]func(c *pack.Contents){
		"pack": func(c *pack.Contents) { c.Pack[15] = 1 }, "generation": func(c *pack.Contents) { c.Generation = 2 },
		"type": func(c *pack.Contents) { c.Frames[0].Type = 2 }, "codec": func(c *pack.Contents) { c.Frames[0].Codec = 0 },
		"stored": func(c *pack.Contents) { c.Frames[0].Stored = 41 }, "raw": func(c *pack.Contents) { c.Frames[0].Raw = 6 },
		"chunk id": func(c *pack.Contents) { c.Frames[0].Chunks[0].ID[31] = 1 }, "chunk length": func(c *pack.Contents) { c.Frames[0].Chunks[0].Length = 6 },
		"a chunk more": func(c *pack.Contents) { c.Frames[0].Chunks = append(c.Frames[0].Chunks, pack.Chunk{}) },
		"a frame less": func(c *pack.Contents) { c.Frames = nil },
	} {
		c := make()
		change(&c)
		if c.Equal(make()) {
			t.Errorf("contents with another %s are equal", name)
		}
	}
}

func TestKey(t *testing.T) {
	id := pack.ID{0xff, 0x01}
	key := string(pack.Key(item, id))
	if want := "items/" + item.String() + "/packs/74/" + id.String(); key != want || len(id.String()) != 26 || !strings.HasPrefix(key, string(pack.Prefix(item))) {
		t.Errorf("key %s, want %s", key, want)
	}
	check(t, pack.Key(item, id).Check())
	if got, err := pack.ParseID(id.String()); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	s := id.String()
	for _, bad := range []string{"", s[:25], s + "a", strings.ToUpper(s), s[:25] + "b", s + "\n", s[:25] + "="} {
		if got, err := pack.ParseID(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}
