//go:build cgo && linux

package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/pkcs11"
)

// check returns the steps of a check, and a letter for the verdict of each: p, w, f
// or s.
func check(t *testing.T, pool *pkcs11.Pool, uri string) (verdicts, text string) {
	t.Helper()
	steps := pool.Check(t.Context(), uri)
	return kektest.Verdicts(t, steps), fmt.Sprintf("%+v", steps)
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		token func(testing.TB) testkit.Token
		want  string
		says  []string
	}{
		"SoftHSM": {testkit.SoftHSM, "ppwpw", []string{`token "coffer test" (SoftHSM v2`, "accepts the PIN from file:", "this token is software", "RSA, 2048 bits, exponent 65537", "SHA-1 only"}},
		"NSS":     {testkit.NSS, "ppwpp", []string{`key "kek", version 00000000`, "older versions: 1", "CKA_LOCAL", "with RSA-OAEP-256"}},
	} {
		t.Run(name, func(t *testing.T) {
			tok := test.token(t)
			pool, b := newPool(t)
			create(t, pool, tok.URI("kek"))
			b.pass(time.Hour)
			create(t, pool, tok.URI("kek"))
			got, text := check(t, pool, tok.URI("kek"))
			if got != test.want {
				t.Errorf("Check = %s, want %s: %s", got, test.want, text)
			}
			for _, part := range test.says {
				if !strings.Contains(text, part) {
					t.Errorf("Check does not say %q: %s", part, text)
				}
			}
			if strings.Contains(text, tok.PIN) {
				t.Errorf("Check tells the PIN: %s", text)
			}
		})
	}
}

// TestCheckFinds everything that can be wrong, at its stage.
func TestCheckFinds(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, _ := newPool(t)
	token(t, tok, func(c *crypto11.Context) {
		generate(t, c, "extractable", []byte{1}, flag(t, crypto11.CkaExtractable, true))
		generate(t, c, "signer", []byte{2}, flag(t, crypto11.CkaDecrypt, false))
		generate(t, c, "public", []byte{3}, flag(t, crypto11.CkaPrivate, false))
		_, err := c.GenerateRSAKeyPairWithLabel([]byte{7}, []byte("small"), 1024)
		must(t, err)
	})
	module := func(path string) string { return strings.Replace(tok.URI("public"), tok.Module, path, 1) }
	for _, test := range []struct{ uri, want, says string }{
		{tok.URI("extractable"), "ppfss", "CKA_EXTRACTABLE"},
		{tok.URI("signer"), "pfsss", "CKA_DECRYPT"},
		{tok.URI("none"), "pfsss", "put back the token that has the key"},
		{tok.URI("public"), "ppwpw", "CKA_PRIVATE"},
		{tok.URI("small"), "ppwfs", "1024-bit"},
		{module("/nowhere/lib.so"), "fssss", "the PKCS#11 library is not there"},
		{strings.Replace(tok.URI("public"), "coffer%20test", "gone", 1), "fssss", "the token is not present"},
		{strings.Replace(tok.URI("public"), tok.PINFile, "/nowhere/pin", 1), "fssss", "/nowhere/pin"},
		{"pkcs11:token=x", "fssss", "object=NAME"},
	} {
		got, text := check(t, pool, test.uri)
		if got != test.want || !strings.Contains(text, test.says) {
			t.Errorf("Check(%s) = %s, want %s and %q: %s", test.uri, got, test.want, test.says, text)
		}
	}

	tok.WritePIN(t, wrongPIN)
	before := faults.Calls(testkit.Login)
	for range 3 {
		got, text := check(t, pool, tok.URI("public"))
		if got != "fssss" || !strings.Contains(text, "not tried again") || strings.Contains(text, wrongPIN) {
			t.Errorf("Check with a wrong PIN = %s: %s", got, text)
		}
	}
	if n := faults.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("the wrong PIN was tried %d times", n)
	}
}

// TestCheckOfSickToken: faults on the way are the stage's at which they happen, and
// those that a new connection heals are not seen.
func TestCheckOfSickToken(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, b := newPool(t)
	create(t, pool, tok.URI("kek"))
	faults.Fail(testkit.DecryptInit, sessionInvalid, 1)
	if got, text := check(t, pool, tok.URI("kek")); got != "ppwpw" {
		t.Errorf("Check with a fault that heals = %s: %s", got, text)
	}
	b.pass(time.Hour)
	faults.Fail(testkit.DecryptInit, deviceError, 100)
	if got, text := check(t, pool, tok.URI("kek")); got != "ppwpf" {
		t.Errorf("Check of a token that cannot decrypt = %s: %s", got, text)
	}
	faults.Fail(testkit.DecryptInit, 0, 0)
	b.pass(time.Hour)
	faults.Hang(testkit.DecryptInit)
	defer faults.Release(testkit.DecryptInit)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if steps := pool.Check(ctx, tok.URI("kek")); len(steps) != 5 || steps[4].Verdict == kek.Passed {
		t.Errorf("Check of a token that hangs = %+v", steps)
	}
}

// TestDates is on a token that keeps the dates of keys.
func TestDates(t *testing.T) {
	testkit.OpenCryptoki(t, func(t *testing.T, tok testkit.Token) {
		pool, b := newPool(t)
		day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
		today := b.Now().Day()
		token(t, tok, func(c *crypto11.Context) {
			dated := func(label string, id byte, attribute crypto11.AttributeType, n int) {
				generate(t, c, label, []byte{id}, func(private crypto11.AttributeSet) {
					must(t, private.Set(crypto11.CkaSensitive, true))
					must(t, private.Set(crypto11.CkaExtractable, false))
					must(t, private.Set(attribute, day(n)))
				})
			}
			dated("expired", 1, crypto11.CkaEndDate, today-1)
			dated("last day", 2, crypto11.CkaEndDate, today)
			dated("first day", 3, crypto11.CkaStartDate, today)
			dated("future", 4, crypto11.CkaStartDate, today+1)
		})
		for _, test := range []struct {
			object, says string
			want         byte // verdict of the stage
			facts        kek.Facts
		}{
			{"expired", "its last day was 2026-11-21", 'w', kek.Facts{Expires: day(today)}},
			{"last day", "RSA, 2048 bits", 'p', kek.Facts{Expires: day(today + 1)}},
			{"first day", "RSA, 2048 bits", 'p', kek.Facts{Created: day(today), NotBefore: day(today)}},
			{"future", "its first day is 2026-11-23", 'w', kek.Facts{Created: day(today + 1), NotBefore: day(today + 1)}},
		} {
			t.Run(test.object, func(t *testing.T) {
				if got, text := check(t, pool, tok.URI(test.object)); got[3] != test.want || !strings.Contains(text, test.says) {
					t.Errorf("Check = %s, want %c and %q: %s", got, test.want, test.says, text)
				}
				test.facts.Hardware, test.facts.Enabled, test.facts.MayUnwrap = kek.No, kek.Yes, kek.Yes
				facts, err := open(t, pool, tok.URI(test.object)).(kek.Inspector).Inspect(t.Context())
				if err != nil || facts != test.facts {
					t.Errorf("Inspect = %+v, %v, want %+v", facts, err, test.facts)
				}
			})
		}
	})
}

func TestInspect(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, b := newPool(t)
	create(t, pool, tok.URI("kek"))
	token(t, tok, func(c *crypto11.Context) { generate(t, c, "foreign", []byte{2}, nil) })
	for object, want := range map[string]time.Time{"kek": b.Now(), "foreign": {}} {
		facts, err := open(t, pool, tok.URI(object)).(kek.Inspector).Inspect(t.Context())
		if err != nil || !facts.Created.Equal(want) || facts.Hardware != kek.No || facts.Enabled != kek.Yes || facts.MayUnwrap != kek.Yes || facts.PurgeProtection != kek.Unsaid {
			t.Errorf("Inspect of %s = %+v, %v", object, facts, err)
		}
	}
	gone := open(t, pool, tok.URI("foreign"))
	token(t, tok, func(c *crypto11.Context) {
		pairs, err := c.FindRSAKeyPairs([]byte{2}, nil)
		must(t, err)
		must(t, pairs[0].Delete())
	})
	if _, err := gone.(kek.Inspector).Inspect(t.Context()); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("Inspect of a key that is gone = %v, want %v", err, kek.ErrMissing)
	}
}
