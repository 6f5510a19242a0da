package catalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/fxamacker/cbor/v2"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// A record is public and authenticated:
//
//	magic, 8 bytes | length of the body, uint32 | body, CBOR | MAC, 32 bytes | CRC-32C of all before, uint32
//
// The MAC is over the object's key and the body, under the vault key.
const (
	descriptorMagic = "cofferV1"
	keyRecordMagic  = "cofferK1"
	recordHead      = 8 + 4
	recordTail      = crypt.MACSize + 4
	maxRecord       = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a parsed record whose MAC has not been checked yet.
type record struct {
	key  store.Key
	body []byte
	mac  []byte
}

func sealRecord(vk *crypt.VaultKey, magic string, key store.Key, body any) ([]byte, error) {
	b, err := encoding.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	out := append([]byte(magic), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out[8:], uint32(len(b)))
	mac, err := vk.MAC(string(key), b)
	if err != nil {
		return nil, err
	}
	out = append(append(out, b...), mac...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// parseRecord checks everything that needs no key and decodes the body into v.
// Nothing in v may be acted on before verify.
func parseRecord(magic string, key store.Key, b []byte, v any) (record, error) {
	damaged := func(what string) (record, error) {
		return record{}, fmt.Errorf("read %s: %s: %w", key, what, crypt.ErrDamaged)
	}
	if len(b) < recordHead+recordTail || len(b) > maxRecord {
		return damaged(fmt.Sprintf("%d bytes", len(b)))
	}
	if string(b[:6]) != magic[:6] {
		return damaged(fmt.Sprintf("does not begin with %q", magic))
	}
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return damaged("checksum does not hold")
	}
	if string(b[:7]) != magic[:7] {
		return damaged(fmt.Sprintf("does not begin with %q", magic))
	}
	if b[7] != magic[7] {
		return record{}, fmt.Errorf("read %s: format %q is not %q: use a newer build", key, b[:8], magic)
	}
	n := binary.BigEndian.Uint32(b[8:])
	if uint64(n) != uint64(len(b)-recordHead-recordTail) {
		return damaged("wrong length")
	}
	r := record{key: key, body: b[recordHead : recordHead+n], mac: b[recordHead+n : len(b)-4]}
	if err := decode(r.body, v); err != nil {
		return damaged(err.Error())
	}
	return r, nil
}

func (r record) verify(vk *crypt.VaultKey) error {
	return vk.Verify(string(r.key), r.body, r.mac)
}

// ScrubRecord checks a descriptor or key record without any key. It finds
// accidents, not forgeries.
func ScrubRecord(key store.Key, b []byte) error {
	magic := keyRecordMagic
	if key == Descriptor {
		magic = descriptorMagic
	}
	var body cbor.RawMessage
	_, err := parseRecord(magic, key, b, &body)
	return err
}

// encoding is RFC 8949, 4.2.1: equal values make equal bytes.
var encoding = func() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty
	return must(opts.EncMode())
}()

var decoding = must(cbor.DecOptions{
	MaxArrayElements:  1 << 24,
	MaxMapPairs:       1 << 20,
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
}.DecMode())

// decode reads into v, which is zero, what encoding writes for it and nothing else.
func decode(b []byte, v any) error {
	if err := decoding.Unmarshal(b, v); err != nil {
		return err
	}
	if again, err := encoding.Marshal(v); err != nil || !bytes.Equal(again, b) {
		return errors.New("encoding is not the deterministic one")
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("catalog: internal error: " + err.Error())
	}
	return v
}
