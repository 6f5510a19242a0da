//go:build cgo && linux

package pkcs11_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
)

// TestCreate looks at a new key with the token's own eyes.
func TestCreate(t *testing.T) {
	for name, make := range map[string]func(testing.TB) testkit.Token{"SoftHSM": testkit.SoftHSM, "NSS": testkit.NSS} {
		t.Run(name, func(t *testing.T) {
			tok := make(t)
			pool, b := newPool(t)
			ref := create(t, pool, tok.URI("kek"))
			token(t, tok, func(c *crypto11.Context) {
				pair := onlyPair(t, c)
				id := attribute(t, c, pair, crypto11.CkaId)
				want := append(binary.BigEndian.AppendUint64(nil, uint64(b.Now().Unix())), ref.Fingerprint[:12]...)
				if !bytes.Equal(id, want) || ref.Version != hex.EncodeToString(want) {
					t.Errorf("CKA_ID is %x, the version %s, want %x", id, ref.Version, want)
				}
				public, err := c.GetPubAttribute(pair, crypto11.CkaId)
				if err != nil || !bytes.Equal(public.Value, want) {
					t.Errorf("CKA_ID of the public half is %x, %v", public.Value, err)
				}
				for name, check := range map[string]struct {
					attribute crypto11.AttributeType
					want      byte
				}{
					"TOKEN": {crypto11.CkaToken, 1}, "PRIVATE": {crypto11.CkaPrivate, 1},
					"SENSITIVE": {crypto11.CkaSensitive, 1}, "EXTRACTABLE": {crypto11.CkaExtractable, 0},
					"DECRYPT": {crypto11.CkaDecrypt, 1}, "SIGN": {crypto11.CkaSign, 0},
					"SIGN_RECOVER": {crypto11.CkaSignRecover, 0}, "UNWRAP": {crypto11.CkaUnwrap, 0},
				} {
					if got := attribute(t, c, pair, check.attribute); !bytes.Equal(got, []byte{check.want}) {
						t.Errorf("CKA_%s is %v, want %d", name, got, check.want)
					}
				}
			})
		})
	}
}

// TestCreateWhereNothingCanBeRenamed takes the way of a token that lets no id be
// changed.
func TestCreateWhereNothingCanBeRenamed(t *testing.T) {
	const attributeReadOnly = 0x10
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, b := newPool(t)
	faults.Fail(testkit.SetAttributeValue, attributeReadOnly, 1)
	ref := create(t, pool, tok.URI("kek"))
	if n := faults.Calls(testkit.SetAttributeValue); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	token(t, tok, func(c *crypto11.Context) {
		id := attribute(t, c, onlyPair(t, c), crypto11.CkaId)
		if hex.EncodeToString(id) != ref.Version || binary.BigEndian.Uint64(id) != uint64(b.Now().Unix()) {
			t.Errorf("CKA_ID is %x, the version %s", id, ref.Version)
		}
	})
	if err := open(t, pool, tok.URI("kek")).Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestVersions makes three versions in one second and after the clock was set back.
func TestVersions(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, b := newPool(t)
	var refs []kek.Ref
	for range 3 {
		refs = append(refs, create(t, pool, tok.URI("kek")))
		b.pass(-time.Hour)
	}
	create(t, pool, tok.URI("another kek"))
	oldest := refs[0]
	slices.Reverse(refs)

	if got := open(t, pool, tok.URI("kek")).Ref(); got.Fingerprint != refs[0].Fingerprint || got.Version != refs[0].Version {
		t.Errorf("the first is version %s, want the newest, %s", got.Version, refs[0].Version)
	}
	pinned := open(t, pool, pin(t, tok.URI("kek"), oldest.Version))
	if pinned.Ref().Fingerprint != oldest.Fingerprint {
		t.Errorf("a URI with an id opens version %s, want %s", pinned.Ref().Version, oldest.Version)
	}
	keys, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
	if err != nil {
		t.Fatal(err)
	}
	ring := kek.NewRing(keys...)
	var got []string
	for _, key := range ring.Keys() {
		got = append(got, key.Ref().Version)
	}
	if want := []string{refs[0].Version, refs[1].Version, refs[2].Version}; !slices.Equal(got, want) {
		t.Errorf("Versions = %v, want %v", got, want)
	}
	if w := ring.Wrappers(); len(w) != 1 || w[0].Ref().Version != refs[0].Version {
		t.Errorf("the ring wraps with %d versions", len(w))
	}
	if secret, _, err := ring.Unwrap(t.Context(), []kek.Wrapped{wrap(t, pinned)}); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap what the oldest version wrapped = %q, %v", secret, err)
	}
	if err := ring.Close(); err != nil {
		t.Error(err)
	}
}

// TestForeignIDs: what others called 01, 02 and a SHA-1 hash is older than ours.
func TestForeignIDs(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, b := newPool(t)
	ids := [][]byte{{1}, {2}, {1, 0}, bytes.Repeat([]byte{0xee}, 20)}
	token(t, tok, func(c *crypto11.Context) {
		for _, i := range []int{2, 0, 3, 1} {
			generate(t, c, "kek", ids[i], nil)
		}
	})
	ours := create(t, pool, tok.URI("kek"))
	b.pass(time.Second)
	keys, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, key := range keys {
		got = append(got, key.Ref().Version)
		if err := key.Close(); err != nil {
			t.Error(err)
		}
	}
	want := []string{ours.Version, strings.Repeat("ee", 20), "0100", "02", "01"}
	if !slices.Equal(got, want) {
		t.Errorf("Versions = %v, want %v", got, want)
	}
}

// TestUnsuitable offers keys that may not be a KEK.
func TestUnsuitable(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, _ := newPool(t)
	token(t, tok, func(c *crypto11.Context) {
		generate(t, c, "extractable", []byte{1}, flag(t, crypto11.CkaExtractable, true))
		generate(t, c, "readable", []byte{2}, flag(t, crypto11.CkaSensitive, false))
		generate(t, c, "signer", []byte{3}, flag(t, crypto11.CkaDecrypt, false))
		_, err := c.GenerateRSAKeyPairWithLabel([]byte{4}, []byte("small"), 1024)
		must(t, err)
		_, err = c.GenerateECDSAKeyPairWithLabel([]byte{5}, []byte("elliptic"), elliptic.P256())
		must(t, err)
		generate(t, c, "mixed", []byte{6}, nil)
		_, err = c.GenerateECDSAKeyPairWithLabel([]byte{7}, []byte("mixed"), elliptic.P256())
		must(t, err)
	})
	for object, says := range map[string]string{
		"extractable": "CKA_EXTRACTABLE",
		"readable":    "CKA_SENSITIVE",
		"signer":      "CKA_DECRYPT",
		"small":       "1024-bit",
		"elliptic":    "not an RSA key",
	} {
		_, err := pool.Versions(t.Context(), "main", tok.URI(object))
		if !errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), says) {
			t.Errorf("Versions of %s = %v, want %v and %q", object, err, kek.ErrUnsuitable, says)
		}
	}
	if err := open(t, pool, tok.URI("mixed")).Check(t.Context()); err != nil {
		t.Errorf("Check of an RSA key that shares its label: %v", err)
	}
	for _, test := range []struct {
		uri  string
		bits int
		want error
	}{
		{tok.URI("new"), 1024, kek.ErrUnsuitable},
		{tok.URI("new"), 8192, kek.ErrUnsuitable},
		{pin(t, tok.URI("new"), "01"), 2048, kek.ErrUnsuitable},
		{tok.URI("signer"), 2048, nil}, // a new version mends it
	} {
		if _, err := pool.Create(t.Context(), test.uri, test.bits); !errors.Is(err, test.want) {
			t.Errorf("Create of %d bits = %v, want %v", test.bits, err, test.want)
		}
	}
	open(t, pool, tok.URI("signer"))
}

// TestCautions: NSS does not vouch for keys, even those that it made.
func TestCautions(t *testing.T) {
	tok := testkit.NSS(t)
	key, b := keyOn(t, tok)
	c, ok := key.(kek.Cautioner)
	if !ok || len(c.Cautions()) != 1 || !strings.Contains(c.Cautions()[0], "CKA_LOCAL") {
		t.Fatalf("the key has no caution about CKA_LOCAL")
	}
	if !strings.Contains(b.String(), "CKA_LOCAL") {
		t.Errorf("the log does not tell:\n%s", b)
	}
}

// TestNotThere is about tokens, libraries and keys that are missing.
func TestNotThere(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, _ := newPool(t)
	create(t, pool, tok.URI("kek"))
	module := func(path string) string { return strings.Replace(tok.URI("kek"), tok.Module, path, 1) }
	label := strings.Replace(tok.URI("kek"), "coffer%20test", "gone", 1)
	for _, test := range []struct {
		uri  string
		want error
		says string
	}{
		{tok.URI("other"), kek.ErrMissing, "has no private key"},
		{pin(t, tok.URI("kek"), "0102"), kek.ErrMissing, "id=%01%02"},
		{label, kek.ErrUnreachable, `present: "coffer test"`},
		{strings.Replace(label, "token=gone", "serial=0000", 1), kek.ErrUnreachable, "not present"},
		{module("/nowhere/lib.so"), kek.ErrUnreachable, "module-path"},
		{module("/etc/hostname"), kek.ErrUnreachable, "cannot be loaded"},
		{"pkcs11:token=x", kek.ErrUnsuitable, "object=NAME"},
	} {
		_, err := pool.Versions(t.Context(), "main", test.uri)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Versions(%s) = %v; want %v and %q", test.uri, err, test.want, test.says)
		}
	}
}

// TestTwins: two tokens of one name are not guessed between.
func TestTwins(t *testing.T) {
	one := testkit.SoftHSM(t)
	two := one.Sibling(t, one.Label)
	pool, _ := newPool(t)
	_, err := pool.Versions(t.Context(), "main", two.URI("kek"))
	if !errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), "serial=") {
		t.Errorf("Versions = %v, want %v and serial=", err, kek.ErrUnsuitable)
	}
}

// TestTakenAway deletes a key from the token: it is missing from the next
// connection on, and works again when it is back.
func TestTakenAway(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, _ := keyOn(t, tok)
	token(t, tok, func(c *crypto11.Context) { must(t, onlyPair(t, c).Delete()) })
	faults.Fail(testkit.DecryptInit, sessionInvalid, 1)
	if err := key.Check(t.Context()); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("Check = %v, want %v", err, kek.ErrMissing)
	}
}

// token opens a token beside the Pool.
func token(t *testing.T, tok testkit.Token, use func(*crypto11.Context)) {
	t.Helper()
	c, err := crypto11.Configure(&crypto11.Config{Path: tok.Module, TokenLabel: tok.Label, Pin: tok.PIN})
	must(t, err)
	defer c.Close()
	use(c)
}

// onlyPair fails unless there is one pair of keys on the token.
func onlyPair(t *testing.T, c *crypto11.Context) crypto11.Signer {
	t.Helper()
	pairs, err := c.FindAllKeyPairs()
	must(t, err)
	if len(pairs) != 1 {
		t.Fatalf("the token has %d pairs of keys, want 1", len(pairs))
	}
	return pairs[0]
}

func attribute(t *testing.T, c *crypto11.Context, pair crypto11.Signer, which crypto11.AttributeType) []byte {
	t.Helper()
	value, err := c.GetAttribute(pair, which)
	must(t, err)
	return value.Value
}

func generate(t *testing.T, c *crypto11.Context, label string, id []byte, change func(crypto11.AttributeSet)) {
	t.Helper()
	public, err := crypto11.NewAttributeSetWithIDAndLabel(id, []byte(label))
	must(t, err)
	private := public.Copy()
	if change != nil {
		change(private)
	}
	_, err = c.GenerateRSAKeyPairWithAttributes(public, private, 2048)
	must(t, err)
}

// flag changes an attribute of a private key to be.
func flag(t *testing.T, attribute crypto11.AttributeType, value bool) func(crypto11.AttributeSet) {
	return func(private crypto11.AttributeSet) { must(t, private.Set(attribute, value)) }
}

// pin adds an id to a URI.
func pin(t *testing.T, uri, version string) string {
	t.Helper()
	id, err := hex.DecodeString(version)
	must(t, err)
	var escaped strings.Builder
	for _, c := range id {
		fmt.Fprintf(&escaped, "%%%02x", c)
	}
	path, query, _ := strings.Cut(uri, "?")
	return path + ";id=" + escaped.String() + "?" + query
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
