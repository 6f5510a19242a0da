package crypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/restic/chunker"

	"github.com/cofferbackup/coffer/crypt"
)

// TestVaultKeyDerivations follows docs/format.md, 2.2 and 3, by its words.
func TestVaultKeyDerivations(t *testing.T) {
	raw := sequence(32, 1)
	k := vaultKey(t, raw)
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(derive(t, raw, "coffer/1 vault id", 20)))
	if got := k.ID().String(); got != text || len(got) != 32 {
		t.Errorf("vault id %s, want %s", got, text)
	}
	record := derive(t, raw, "coffer/1 record mac", 32)
	if got, want := macOf(t, k, "keys/vault/1", "body"), mac(record, []byte("keys/vault/1"), []byte{0}, []byte("body")); !bytes.Equal(got, want) {
		t.Errorf("record MAC %x, want %x", got, want)
	}
	item := itemID(t, k, "db1")
	if want := mac(derive(t, raw, "coffer/1 item id", 32), []byte("db1"))[:16]; !bytes.Equal(item[:], want) {
		t.Errorf("item id %x, want %x", item, want)
	}
	label := gcm(t, derive(t, raw, "coffer/1 item name", 32))
	sealed := sealName(t, k, item, "db1")
	if name, err := label.Open(nil, nil, sealed, item[:]); err != nil || string(name) != "db1" {
		t.Errorf("sealed name opens to %q, %v", name, err)
	}
	if name, err := k.OpenName(item, label.Seal(nil, nil, []byte("vm1"), item[:])); err != nil || name != "vm1" {
		t.Errorf("OpenName = %q, %v", name, err)
	}
}

// TestKnownAnswers holds values that another program computed, in another
// language, from docs/format.md.
func TestKnownAnswers(t *testing.T) {
	k := vaultKey(t, sequence(32, 0))
	s := secretOf(t, sequence(64, 0))
	id := namer(t, s).ID([]byte("chunk"))
	item := itemID(t, k, "etc")
	for name, v := range map[string][2]string{
		"vault id":   {k.ID().String(), "ewb6nd7j72u5vsesf4ha7ftswme25ahk"},
		"item id":    {item.String(), "rillesmbriwj4wcvlhsptiltbm"},
		"record MAC": {hex.EncodeToString(macOf(t, k, "vault", "x")), "35b8d0243600045fcd23df757bdfd0be18e73d911352251a78fb1628586cbc31"},
		"commitment": {hex.EncodeToString(s.Commitment()), "29ec9bc3b19e4d12746a223d8ddd03050ca344d6d533477b8987311b45bf7c9a"},
		"chunk id":   {id.String(), "9bbb10a0963268bdda347f0fe334a1ed01d22af8055485ebf6800ff00c00d0bc"},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: %s, want %s", name, v[0], v[1])
		}
	}
}

// TestSecretDerivations follows docs/format.md, 2.3.
func TestSecretDerivations(t *testing.T) {
	raw := sequence(64, 7)
	s := secretOf(t, raw)
	if got, want := s.Commitment(), derive(t, raw, "coffer/1 secret commitment", 32); !bytes.Equal(got, want) {
		t.Errorf("commitment %x, want %x", got, want)
	}
	namer := namer(t, s)
	for _, data := range []string{"", "a", "a longer chunk", "a"} {
		if got, want := namer.ID([]byte(data)), mac(raw[32:], []byte(data)); !bytes.Equal(got[:], want) {
			t.Errorf("id of %q: %x, want %x", data, got, want)
		}
	}
	for from := range byte(4) {
		raw := sequence(64, from)
		got, err := secretOf(t, raw).Polynomial()
		check(t, err)
		if want := polynomial(t, raw[32:]); uint64(got) != want {
			t.Errorf("polynomial %x, want %x", uint64(got), want)
		}
	}
}

// polynomial is the first of the seed's numbers that is irreducible.
func polynomial(t *testing.T, chunkIDKey []byte) uint64 {
	seed := derive(t, chunkIDKey, "coffer/1 polynomial", 8160)
	for at := 0; at < len(seed); at += 8 {
		p := binary.LittleEndian.Uint64(seed[at:])
		p = p&(1<<54-1) | 1<<53 | 1
		if chunker.Pol(p).Irreducible() {
			return p
		}
	}
	t.Fatal("no polynomial")
	return 0
}

// TestObjectDerivations follows docs/format.md, 2.4, 2.5 and 4.1: it takes apart
// what the package makes, and makes what the package takes apart.
func TestObjectDerivations(t *testing.T) {
	raw := sequence(64, 3)
	s := secretOf(t, raw)
	place := crypt.Place{Kind: crypt.Index, Item: crypt.ItemID(sequence(16, 50)), Generation: 0x01020304, ID: [16]byte(sequence(16, 90))}
	object, header := s.NewObject(place)
	if len(header) != crypt.HeaderSize || string(header[:8]) != "cofferI\x01" || !bytes.Equal(header[8:24], place.Item[:]) ||
		!bytes.Equal(header[24:28], []byte{1, 2, 3, 4}) {
		t.Fatalf("header %x", header)
	}
	key, commitment := objectKeys(t, raw, header[28:60], "I", place)
	if !bytes.Equal(header[60:92], commitment) {
		t.Errorf("commitment %x, want %x", header[60:92], commitment)
	}
	if want := crc(header[:92]); !bytes.Equal(header[92:], want) {
		t.Errorf("CRC %x, want %x", header[92:], want)
	}
	aad := append(append(bytes.Clone(place.ID[:]), 0, 0, 1, 2), 9)
	sealed, err := object.Seal([]byte("before"), []byte("plaintext"), 258, 9)
	check(t, err)
	if len(sealed) != 6+9+crypt.Overhead {
		t.Errorf("%d bytes", len(sealed))
	}
	if plain, err := gcm(t, key).Open(nil, nil, sealed[6:], aad); err != nil || string(plain) != "plaintext" {
		t.Errorf("seal opens to %q, %v", plain, err)
	}

	salt := sequence(32, 200)
	key, commitment = objectKeys(t, raw, salt, "I", place)
	header = append(append(append(bytes.Clone(header[:28]), salt...), commitment...), 0, 0, 0, 0)
	copy(header[92:], crc(header[:92]))
	object, err = s.OpenObject(place, header)
	check(t, err)
	theirs := gcm(t, key).Seal(nil, nil, []byte("theirs"), aad)
	if plain, err := object.Open([]byte("x"), theirs, 258, 9); err != nil || string(plain) != "xtheirs" {
		t.Errorf("Open = %q, %v", plain, err)
	}
}

func objectKeys(t *testing.T, raw, salt []byte, kind string, p crypt.Place) (key, commitment []byte) {
	t.Helper()
	prk, err := hkdf.Extract(sha256.New, raw[:32], salt)
	check(t, err)
	context := string(binary.BigEndian.AppendUint32(append([]byte(kind), p.Item[:]...), p.Generation))
	key, err = hkdf.Expand(sha256.New, prk, "coffer/1 object key"+context, 32)
	check(t, err)
	commitment, err = hkdf.Expand(sha256.New, prk, "coffer/1 object commitment"+context, 32)
	check(t, err)
	return key, commitment
}

func crc(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// gcm is AES-256-GCM whose messages are nonce || ciphertext || tag.
func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	check(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	check(t, err)
	return aead
}
