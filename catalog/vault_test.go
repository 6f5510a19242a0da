package catalog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/storetest"
)

// TestCreateSurvivesEveryCrash: whatever write a creation dies at, the next one
// either succeeds, or finds a vault that opens.
func TestCreateSurvivesEveryCrash(t *testing.T) {
	k := newKey(t, "main")
	ring := kek.NewRing(k)
	count := storetest.NewCrash(0, storetest.Applied)
	vault(t, count.Store(newStore()), k)
	points := 0
	for n := 1; n <= count.Writes(); n++ {
		for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
			for again := range 3 { // several creations die there, one after the other
				points++
				st := newStore()
				for range again + 1 {
					crash := storetest.NewCrash(n, how)
					_, err := catalog.Create(t.Context(), crash.Store(st), catalog.CreateOptions{Mode: catalog.CustomerManaged, Ring: ring, Now: now})
					if err == nil {
						t.Fatalf("write %d %v: no error", n, how)
					}
				}
				v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.CustomerManaged, Ring: ring, Now: now})
				if committed := n == count.Writes() && how == storetest.Applied; committed {
					is(t, fmt.Sprintf("write %d %v", n, how), err, catalog.ErrVaultExists)
				} else if err != nil {
					t.Fatalf("write %d %v: %v", n, how, err)
				}
				var d struct {
					Vault crypt.VaultID `cbor:"1,keyasint"`
				}
				check(t, cbor.Unmarshal(bodyOf(read(t, st, "vault")), &d))
				if v != nil && v.ID() != d.Vault {
					t.Errorf("write %d %v: the descriptor is of another vault", n, how)
				}
				opened, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: d.Vault, Ring: ring})
				check(t, err)
				item(t, opened, "etc").Close()
				for key, err := range opened.CheckRecords(t.Context()) {
					if err != nil {
						t.Errorf("write %d %v: %s: %v", n, how, key, err)
					}
				}
			}
		}
	}
	t.Logf("%d crash points", points)
}

func TestOpen(t *testing.T) {
	main, escrow, stranger := newKey(t, "main"), newKey(t, "escrow"), newKey(t, "stranger")
	st := newStore()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.CustomerManaged, Ring: kek.NewRing(main, escrow), Now: now})
	check(t, err)
	for _, k := range []key{main, escrow} {
		got, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
		check(t, err)
		if got.ID() != v.ID() || got.Mode() != catalog.CustomerManaged || got.Created().Unix() != now.Unix() {
			t.Errorf("%v %v %v", got.ID(), got.Mode(), got.Created())
		}
	}
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(stranger)})
	is(t, "a key that was not asked to wrap", err, kek.ErrNoKey)
	for _, fault := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing} {
		broken := main
		broken.fault = fault
		_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(broken)})
		is(t, "a key that fails", err, fault)
		if _, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(broken, escrow)}); err != nil {
			t.Errorf("the second key does not open it: %v", err)
		}
	}
	imposter := stranger
	imposter.ref.Fingerprint = main.ref.Fingerprint
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(imposter)})
	is(t, "another key under the same fingerprint", err, kek.ErrWrongKey)
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: crypt.NewVaultKey().ID(), Ring: kek.NewRing(main)})
	is(t, "another id", err, catalog.ErrOtherVault)
	_, err = catalog.Open(t.Context(), newStore(), catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(main)})
	is(t, "an empty store", err, catalog.ErrNoVault)
	_, err = catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(main), Now: now})
	is(t, "a vault where one is", err, catalog.ErrVaultExists)
	_, err = catalog.Create(t.Context(), newStore(), catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(), Now: now})
	is(t, "a vault without a key", err, kek.ErrNoKey)
	for key, err := range v.CheckRecords(t.Context()) {
		check(t, err)
		check(t, catalog.ScrubRecord(key, read(t, st, key)))
	}
}

// forge makes a key record of the vault at a later epoch, with a vault key of its
// maker's own and a MAC under that.
func forge(t *testing.T, genuine []byte, vk *crypt.VaultKey, k kek.Wrapper, as crypt.VaultID, epoch int, at store.Key) []byte {
	t.Helper()
	body := make(map[int]any)
	check(t, cbor.Unmarshal(bodyOf(genuine), &body))
	w, err := vk.Wrap([]kek.Wrapper{k})
	check(t, err)
	body[1], body[4], body[6] = as[:], epoch, 1 // and the mode lowered
	body[9] = []any{[]any{string(w[0].Provider), w[0].URI, w[0].Version, w[0].Fingerprint[:], int(w[0].Algorithm), w[0].Ciphertext}}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	check(t, err)
	b, err := enc.Marshal(body)
	check(t, err)
	return record(vk, "cofferK1", at, b)
}

// TestForgedKeyRecord: who knows the KEK's public half and may write to the store
// cannot make the vault open under a key of his own, nor keep it from opening.
func TestForgedKeyRecord(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	v := vault(t, st, k)
	genuine := read(t, st, "keys/vault/00000001-00000001")
	own := crypt.NewVaultKey()
	for i, as := range []crypt.VaultID{v.ID(), own.ID()} {
		epoch := i + 2
		at := store.Key(fmt.Sprintf("keys/vault/00000001-%08d", epoch))
		put(t, st, at, forge(t, genuine, own, k, as, epoch, at))
		check(t, catalog.ScrubRecord(at, read(t, st, at)))
	}
	put(t, st, "keys/vault/00000001-00000004", genuine) // the good one, moved
	put(t, st, "keys/vault/00000002-00000001", []byte("rubbish"))
	got, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	if err != nil || got.Mode() != catalog.CustomerManaged {
		t.Fatalf("the good record does not open any more: %v", err)
	}
	wrong := 0
	for key, err := range got.CheckRecords(t.Context()) {
		if err != nil {
			wrong++
			is(t, string(key), err, crypt.ErrDamaged)
		}
	}
	if wrong != 3 { // the one of another vault's id is nobody's
		t.Errorf("%d records are wrong, want 3", wrong)
	}

	check(t, st.Delete(t.Context(), "keys/vault/00000001-00000001"))
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	is(t, "with forgeries alone", err, crypt.ErrDamaged)

	// A vault of the attacker's in place of the whole.
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: own.ID(), Ring: kek.NewRing(k)})
	is(t, "the attacker's id", err, catalog.ErrOtherVault)
	tamper(t, st, "vault", func(b []byte) []byte {
		theirs, mine := v.ID(), own.ID()
		body := bytes.Replace(bodyOf(b), theirs[:], mine[:], 1)
		return record(own, "cofferV1", "vault", body)
	})
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	is(t, "the attacker's descriptor", err, catalog.ErrOtherVault)
}

// TestForgedDescriptor: the right id alone does not make a descriptor.
func TestForgedDescriptor(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	v := vault(t, st, k)
	tamper(t, st, "vault", func(b []byte) []byte { return record(crypt.NewVaultKey(), "cofferV1", "vault", bodyOf(b)) })
	_, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	is(t, "a descriptor under another key", err, crypt.ErrDamaged)
}

// TestDamagedRecords flips every byte of the descriptor and of a key record.
func TestDamagedRecords(t *testing.T) {
	k := newKey(t, "main")
	good := newStore()
	v := vault(t, good, k)
	for _, key := range keys(t, good, "") {
		raw := read(t, good, key)
		for at := range raw {
			flipped := bytes.Clone(raw)
			flipped[at] ^= 1 << (at % 8)
			if err := catalog.ScrubRecord(key, flipped); !errors.Is(err, crypt.ErrDamaged) {
				t.Errorf("%s: byte %d flipped: %v", key, at, err)
			}
			if at == 7 { // a version that is meant, with its checksum
				binary.BigEndian.PutUint32(flipped[len(raw)-4:], crc32.Checksum(flipped[:len(raw)-4], crc32.MakeTable(crc32.Castagnoli)))
				if err := catalog.ScrubRecord(key, flipped); errors.Is(err, crypt.ErrDamaged) || !has(err, "use a newer build") {
					t.Errorf("%s: another version: %v", key, err)
				}
			}
			if err := catalog.ScrubRecord(key, raw[:at]); err == nil {
				t.Errorf("%s: %d bytes are taken", key, at)
			}
		}
		for _, at := range []int{0, 7, 11, 20, len(raw) - 40, len(raw) - 5, len(raw) - 1} {
			st := good.Clone()
			tamper(t, st, key, func(b []byte) []byte { b[at] ^= 1; return b })
			opened, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
			if err == nil {
				t.Errorf("%s: byte %d flipped: it opens", key, at)
				opened.Close()
			}
		}
	}
}

// TestRecordEncoding: what is not the one encoding of a record is refused, though
// its checksums hold.
func TestRecordEncoding(t *testing.T) {
	k := newKey(t, "main")
	good := newStore()
	v := vault(t, good, k)
	id := v.ID()
	vk := crypt.NewVaultKey() // ScrubRecord asks for no MAC; the order of checks keeps Open from it
	for why, body := range map[string][]byte{
		"a key more":      append(append([]byte{0xa4}, bodyOf(read(t, good, "vault"))[1:]...), 0x04, 0x00),
		"a long number":   bytes.Replace(bodyOf(read(t, good, "vault")), []byte{0x03, 0x1a}, []byte{0x03, 0x1b, 0, 0, 0, 0}, 1),
		"a byte behind":   append(bytes.Clone(bodyOf(read(t, good, "vault"))), 0),
		"a short id":      bytes.Replace(bodyOf(read(t, good, "vault")), append([]byte{0x54}, id[:]...), append([]byte{0x53}, id[:19]...), 1),
		"not a map":       {0x80},
		"nothing":         {},
		"a key left out":  append([]byte{0xa2}, bodyOf(read(t, good, "vault"))[1:23]...),
		"null for a text": {0xa3, 0x01, 0x54, 0xf6},
	} {
		st := good.Clone()
		tamper(t, st, "vault", func([]byte) []byte { return record(vk, "cofferV1", "vault", body) })
		if _, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(k)}); !has(err, "damaged or forged") {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// TestURIsOfAnyBytes: a key's URI that is not UTF-8 does not lock the vault.
func TestURIsOfAnyBytes(t *testing.T) {
	k := newKey(t, "main")
	k.ref.URI = "file:///k\xffek.pem"
	st := newStore()
	v := vault(t, st, k)
	got, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	check(t, err)
	item(t, got, "etc").Close()
	if _, err := v.Item(t.Context(), "etc"); err != nil {
		t.Error(err)
	}
}

// FuzzRecord: what is taken for a record has a good CRC and its one encoding.
func FuzzRecord(f *testing.F) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(f, st, catalog.CustomerManaged, k)
	item(f, v, "etc")
	_, err := v.Erase(f.Context(), st.Clone(), "etc", now)
	check(f, err)
	for _, key := range keys(f, st, "") {
		f.Add(read(f, st, key))
	}
	f.Add([]byte("cofferK2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, key := range []store.Key{"vault", "keys/vault/00000001-00000001"} {
			if catalog.ScrubRecord(key, b) != nil {
				continue
			}
			if n := len(b) - 4; binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) {
				t.Errorf("%x is taken for a record", b)
			}
		}
		st := newStore()
		put(t, st, "vault", b)
		if v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)}); err == nil {
			t.Errorf("%v opens", v.ID())
		}
	})
}
