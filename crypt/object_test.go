package crypt_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/crypt"
)

var place = crypt.Place{Kind: crypt.Pack, Item: crypt.ItemID{1}, Generation: 2, ID: [16]byte{3}}

func TestObjectIsBoundToItsPlace(t *testing.T) {
	s := crypt.NewSecret()
	object, header := s.NewObject(place)
	sealed := seal(t, object, []byte("plaintext"), 7, 1)
	open := func(s *crypt.Secret, p crypt.Place, index uint32, typ byte) error {
		o, err := s.OpenObject(p, header)
		if err != nil {
			return err
		}
		got, err := o.Open(nil, sealed, index, typ)
		if err == nil && string(got) != "plaintext" {
			t.Errorf("opens to %q", got)
		}
		if err != nil && got != nil {
			t.Errorf("%q is returned with %v", got, err)
		}
		return err
	}
	check(t, open(s, place, 7, 1))
	for what, change := range map[string]func(p *crypt.Place){
		"kind": func(p *crypt.Place) { p.Kind = crypt.Index }, "item": func(p *crypt.Place) { p.Item[15] = 1 },
		"generation": func(p *crypt.Place) { p.Generation++ }, "id": func(p *crypt.Place) { p.ID[15] = 1 },
	} {
		p := place
		change(&p)
		damaged(t, "another "+what, open(s, p, 7, 1))
	}
	damaged(t, "another index", open(s, place, 8, 1))
	damaged(t, "another type", open(s, place, 7, 2))
	damaged(t, "another secret", open(crypt.NewSecret(), place, 7, 1))
	for i := range sealed {
		sealed[i] ^= 0x40
		damaged(t, fmt.Sprintf("byte %d flipped", i), open(s, place, 7, 1))
		sealed[i] ^= 0x40
	}
	for n := range sealed {
		if _, err := object.Open(nil, sealed[:n], 7, 1); !errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("%d bytes of %d: %v", n, len(sealed), err)
		}
	}
	if got, err := object.Open(sealed[:0], sealed, 7, 1); err != nil || string(got) != "plaintext" {
		t.Errorf("open in place: %q, %v", got, err)
	}
}

// TestRewrittenHeader: whoever changes a header and mends its checksum gets no
// further than the commitment.
func TestRewrittenHeader(t *testing.T) {
	s := crypt.NewSecret()
	_, header := s.NewObject(place)
	for at := 6; at < 92; at++ {
		if at == 7 {
			continue // the version: below
		}
		forged := bytes.Clone(header)
		forged[at] ^= 1
		copy(forged[92:], crc(forged[:92]))
		h, err := crypt.ParseHeader(forged)
		check(t, err)
		p := crypt.Place{Kind: h.Kind, Item: h.Item, Generation: h.Generation, ID: place.ID}
		_, err = s.OpenObject(p, forged)
		damaged(t, fmt.Sprintf("byte %d rewritten", at), err)
	}
}

func TestParseHeader(t *testing.T) {
	_, header := crypt.NewSecret().NewObject(place)
	h, err := crypt.ParseHeader(append(bytes.Clone(header), "more"...))
	if err != nil || h.Kind != place.Kind || h.Item != place.Item || h.Generation != place.Generation {
		t.Errorf("%+v, %v", h, err)
	}
	for n := range header {
		_, err := crypt.ParseHeader(header[:n])
		damaged(t, fmt.Sprintf("%d bytes", n), err)
	}
	for i := range header {
		for bit := range 8 {
			flipped := bytes.Clone(header)
			flipped[i] ^= 1 << bit
			_, err := crypt.ParseHeader(flipped)
			if i == 7 {
				if err == nil {
					t.Errorf("version %d is read", flipped[7])
				}
				continue
			}
			damaged(t, fmt.Sprintf("bit %d of byte %d flipped", bit, i), err)
		}
	}
	newer := bytes.Clone(header)
	newer[7] = 2
	copy(newer[92:], crc(newer[:92]))
	if _, err := crypt.ParseHeader(newer); err == nil || errors.Is(err, crypt.ErrDamaged) || !strings.Contains(err.Error(), "use a newer build") {
		t.Errorf("format version 2: %v", err)
	}
}

func TestSealsDiffer(t *testing.T) {
	s := crypt.NewSecret()
	a, ha := s.NewObject(place)
	b, hb := s.NewObject(place)
	if bytes.Equal(ha, hb) {
		t.Error("two objects have one salt")
	}
	sealed := seal(t, a, nil, 0, 0)
	if _, err := b.Open(nil, sealed, 0, 0); !errors.Is(err, crypt.ErrDamaged) {
		t.Errorf("two objects in one place share a key: %v", err)
	}
	if bytes.Equal(sealed, seal(t, a, nil, 0, 0)) {
		t.Error("two messages have one nonce")
	}
	if len(sealed) != crypt.Overhead {
		t.Errorf("nothing is sealed into %d bytes, want %d", len(sealed), crypt.Overhead)
	}
}

func FuzzParseHeader(f *testing.F) {
	s := crypt.NewSecret()
	_, header := s.NewObject(place)
	f.Add(header)
	f.Add(header[:95])
	f.Add([]byte("cofferP\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := crypt.ParseHeader(b)
		if err != nil {
			return
		}
		if !bytes.Equal(crc(b[:92]), b[92:96]) || string(b[:6]) != "coffer" || b[7] != 1 {
			t.Fatalf("%x is taken for a header", b[:96])
		}
		_, err = s.OpenObject(crypt.Place{Kind: h.Kind, Item: h.Item, Generation: h.Generation}, b)
		if err == nil != bytes.Equal(b[:96], header) {
			t.Fatalf("%x opens: %v", b[:96], err)
		}
	})
}
