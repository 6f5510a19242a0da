package crypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Kind of a sealed object.
type Kind byte

// The kinds.
const (
	Pack    Kind = 'P'
	Index   Kind = 'I'
	Point   Kind = 'R'
	Session Kind = 'S' // a backup that has begun
	Mark    Kind = 'M' // what a prune is to remove
	Witness Kind = 'W' // the sessions that may not know of a mark
	Repack  Kind = 'X' // packs that others stand for
	Hold    Kind = 'H' // a hold on a point, or its end
	Removed Kind = 'D' // what a prune is about to remove
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

// Object seals and opens the messages of one object, as long as the secret that it
// was made from is open. It is safe for concurrent use.
type Object struct {
	redacted
	secret *Secret
	aead   cipher.AEAD // nil: the secret was closed already
	id     [16]byte
}

// NewObject makes the key of a new object and returns its header. If the secret is
// closed, the object seals nothing, and the header is that of no object.
func (s *Secret) NewObject(p Place) (*Object, []byte) {
	h := Header{Kind: p.Kind, Item: p.Item, Generation: p.Generation}
	rand.Read(h.salt[:])
	o := &Object{secret: s, id: p.ID}
	_ = s.use(func(raw []byte) error { // the seals say it
		o.aead, h.commitment = objectKey(raw, h)
		return nil
	})
	return o, h.append(make([]byte, 0, HeaderSize))
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
	o := &Object{secret: s, id: p.ID}
	err = s.use(func(raw []byte) error {
		aead, commitment := objectKey(raw, h)
		if !hmac.Equal(commitment[:], h.commitment[:]) {
			return fmt.Errorf("object was not made under this secret: %w", ErrDamaged)
		}
		o.aead = aead
		return nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// objectKey derives the object's key and the commitment to it: one extract with
// the salt, two expands bound to kind, item and generation.
func objectKey(raw []byte, h Header) (aead cipher.AEAD, commitment [32]byte) {
	prk := extract(raw[:dekSize], h.salt[:])
	defer clear(prk)
	var context bytes.Buffer
	context.WriteByte(byte(h.Kind))
	context.Write(h.Item[:])
	context.Write(binary.BigEndian.AppendUint32(nil, h.Generation))
	key := expand(prk, "coffer/1 object key"+context.String(), 32)
	defer clear(key)
	copy(commitment[:], expand(prk, "coffer/1 object commitment"+context.String(), 32))
	return newAEAD(key), commitment
}

// Seal appends the sealed plaintext to dst: nonce, ciphertext, tag. It is bound
// to index and typ. dst must not overlap plaintext.
func (o *Object) Seal(dst, plaintext []byte, index uint32, typ byte) (sealed []byte, err error) {
	aad := o.aad(index, typ)
	err = o.use(func() error {
		sealed = o.aead.Seal(dst, nil, plaintext, aad[:])
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// Open appends the plaintext to dst. ErrDamaged if sealed is not exactly what
// Seal made for this object, index and typ. dst is sealed[:0], or does not overlap
// sealed.
func (o *Object) Open(dst, sealed []byte, index uint32, typ byte) (plain []byte, err error) {
	aad := o.aad(index, typ)
	err = o.use(func() error {
		if plain, err = o.aead.Open(dst, nil, sealed, aad[:]); err != nil {
			return ErrDamaged
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return plain, nil
}

// use calls do unless the secret is closed.
func (o *Object) use(do func() error) error {
	if o.aead == nil {
		return ErrClosed
	}
	return o.secret.use(func([]byte) error { return do() })
}

func (o *Object) aad(index uint32, typ byte) (aad [21]byte) {
	copy(aad[:], o.id[:])
	binary.BigEndian.PutUint32(aad[16:], index)
	aad[20] = typ
	return aad
}
