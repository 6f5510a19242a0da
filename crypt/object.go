package crypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Kind of a sealed object.
type Kind byte

// The kinds.
const (
	Pack  Kind = 'P'
	Index Kind = 'I'
	Point Kind = 'R'
)

// Sizes of a sealed object, in bytes.
const (
	HeaderSize = 96
	Overhead   = 12 + 16 // nonce and tag of every sealed message
)

// Layout of a header (big endian):
//
//	 0  magic "coffer", 6 bytes
//	 6  kind, 1 byte
//	 7  format version, 1 byte: 1
//	 8  item id, 16 bytes
//	24  generation, uint32
//	28  salt, 32 bytes
//	60  key commitment, 32 bytes
//	92  CRC-32C of bytes 0 to 91
const (
	magic   = "coffer"
	version = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the public beginning of a sealed object.
type Header struct {
	Kind       Kind
	Item       ItemID
	Generation uint32
	salt       [32]byte
	commitment [32]byte
}

// ParseHeader reads the first HeaderSize bytes of an object. It does not need a
// key and proves nothing but that the header is not damaged by accident.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderSize {
		return h, fmt.Errorf("header of %d bytes: %w", len(b), ErrDamaged)
	}
	b = b[:HeaderSize]
	if string(b[:6]) != magic {
		return h, fmt.Errorf("header does not begin with %q: %w", magic, ErrDamaged)
	}
	if crc32.Checksum(b[:92], castagnoli) != binary.BigEndian.Uint32(b[92:]) {
		return h, fmt.Errorf("header checksum does not hold: %w", ErrDamaged)
	}
	if b[7] != version {
		return h, fmt.Errorf("object has format version %d, this build reads %d: use a newer build", b[7], version)
	}
	h.Kind = Kind(b[6])
	copy(h.Item[:], b[8:])
	h.Generation = binary.BigEndian.Uint32(b[24:])
	copy(h.salt[:], b[28:])
	copy(h.commitment[:], b[60:])
	return h, nil
}

func (h Header) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, byte(h.Kind), version)
	b = append(b, h.Item[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Generation)
	b = append(b, h.salt[:]...)
	b = append(b, h.commitment[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// Place is where an object belongs. All of it is bound into the object's seals.
type Place struct {
	Kind       Kind
	Item       ItemID
	Generation uint32
	ID         [16]byte // the object's own name
}

// Object seals and opens the messages of one object. It is safe for concurrent use.
type Object struct {
	redacted
	aead cipher.AEAD
	id   [16]byte
}

// NewObject makes the key of a new object and returns its header.
func (s *Secret) NewObject(p Place) (*Object, []byte) {
	h := Header{Kind: p.Kind, Item: p.Item, Generation: p.Generation}
	rand.Read(h.salt[:])
	key, commitment := s.objectKey(h)
	copy(h.commitment[:], commitment)
	return &Object{aead: newAEAD(key), id: p.ID}, h.append(make([]byte, 0, HeaderSize))
}

// OpenObject makes the key of an existing object from its header, which must be
// the one of an object at p. ErrDamaged if it is not, or if another secret made it.
func (s *Secret) OpenObject(p Place, header []byte) (*Object, error) {
	h, err := ParseHeader(header)
	if err != nil {
		return nil, err
	}
	if h.Kind != p.Kind || h.Item != p.Item || h.Generation != p.Generation {
		return nil, fmt.Errorf("header is that of another object (kind %q, item %s, generation %d): %w", h.Kind, h.Item, h.Generation, ErrDamaged)
	}
	key, commitment := s.objectKey(h)
	if !hmac.Equal(commitment, h.commitment[:]) {
		return nil, fmt.Errorf("object was not made under this secret: %w", ErrDamaged)
	}
	return &Object{aead: newAEAD(key), id: p.ID}, nil
}

// objectKey derives the object's key and the commitment to it: one extract with
// the salt, two expands bound to kind, item and generation.
func (s *Secret) objectKey(h Header) (key, commitment []byte) {
	prk, err := hkdf.Extract(sha256.New, s.raw[:dekSize], h.salt[:])
	if err != nil {
		panic("crypt: internal error: " + err.Error())
	}
	var context bytes.Buffer
	context.WriteByte(byte(h.Kind))
	context.Write(h.Item[:])
	context.Write(binary.BigEndian.AppendUint32(nil, h.Generation))
	expand := func(purpose string) []byte {
		out, err := hkdf.Expand(sha256.New, prk, purpose+context.String(), 32)
		if err != nil {
			panic("crypt: internal error: " + err.Error())
		}
		return out
	}
	return expand("coffer/1 object key"), expand("coffer/1 object commitment")
}

// Seal appends the sealed plaintext to dst: nonce, ciphertext, tag. It is bound
// to index and typ. dst must not overlap plaintext.
func (o *Object) Seal(dst, plaintext []byte, index uint32, typ byte) []byte {
	aad := o.aad(index, typ)
	return o.aead.Seal(dst, nil, plaintext, aad[:])
}

// Open appends the plaintext to dst. ErrDamaged if sealed is not exactly what
// Seal made for this object, index and typ. dst is sealed[:0], or does not overlap
// sealed.
func (o *Object) Open(dst, sealed []byte, index uint32, typ byte) ([]byte, error) {
	aad := o.aad(index, typ)
	out, err := o.aead.Open(dst, nil, sealed, aad[:])
	if err != nil {
		return nil, ErrDamaged
	}
	return out, nil
}

func (o *Object) aad(index uint32, typ byte) (aad [21]byte) {
	copy(aad[:], o.id[:])
	binary.BigEndian.PutUint32(aad[16:], index)
	aad[20] = typ
	return aad
}
