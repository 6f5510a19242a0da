package crypt_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
)

// damaged says what was not refused.
func damaged(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, crypt.ErrDamaged) {
		t.Errorf("%s: %v, want %v", what, err, crypt.ErrDamaged)
	}
}

// TestVaultIDCommits: a wrapped key that is not the vault's own is not taken.
func TestVaultIDCommits(t *testing.T) {
	raw := sequence(32, 1)
	id := vaultKey(t, raw).ID()
	k, ref, err := crypt.OpenVaultKey(t.Context(), ring(), wrapped(t, raw), id)
	if err != nil || k.ID() != id || ref.Name != "plain" {
		t.Fatalf("the vault's own key: %v, %v, %v", k, ref, err)
	}
	for name, other := range map[string][]byte{
		"another vault's": sequence(32, 2), "short": raw[:31], "long": sequence(33, 1), "empty": {}, "a secret": sequence(64, 1),
	} {
		k, _, err := crypt.OpenVaultKey(t.Context(), ring(), wrapped(t, other), id)
		damaged(t, name+" key", err)
		if k != nil {
			t.Errorf("%s key was returned", name)
		}
	}
	if _, _, err := crypt.OpenVaultKey(t.Context(), kek.NewRing(), wrapped(t, raw), id); !errors.Is(err, kek.ErrNoKey) || errors.Is(err, crypt.ErrDamaged) {
		t.Errorf("without a KEK: %v, want %v", err, kek.ErrNoKey)
	}
	for _, n := range []int{0, 32, 63, 65} {
		_, _, err := crypt.OpenSecret(t.Context(), ring(), wrapped(t, sequence(n, 1)))
		damaged(t, fmt.Sprintf("a secret of %d bytes", n), err)
	}
}

func TestNewKeysDiffer(t *testing.T) {
	if a, b := crypt.NewVaultKey(), crypt.NewVaultKey(); a.ID() == b.ID() {
		t.Error("two vaults have one id")
	}
	a, b := crypt.NewSecret(), crypt.NewSecret()
	if bytes.Equal(a.Commitment(), b.Commitment()) || namer(t, a).ID(nil) == namer(t, b).ID(nil) {
		t.Error("two secrets are the same")
	}
	raw := rawKey(t, a)
	if again := secretOf(t, raw); len(raw) != 64 || bytes.Equal(raw[:32], raw[32:]) || !bytes.Equal(again.Commitment(), a.Commitment()) {
		t.Error("a secret does not come back as it was wrapped")
	}
}

// brokenKey cannot wrap.
type brokenKey struct{ plainKey }

func (brokenKey) Wrap([]byte) (kek.Wrapped, error) { return kek.Wrapped{}, kek.ErrUnsuitable }

func TestWrapAsksEveryKey(t *testing.T) {
	k := crypt.NewVaultKey()
	if w, err := k.Wrap([]kek.Wrapper{plainKey{}, plainKey{}}); err != nil || len(w) != 2 {
		t.Errorf("%d wrappings, %v", len(w), err)
	}
	w, err := k.Wrap([]kek.Wrapper{plainKey{}, brokenKey{}})
	if !errors.Is(err, kek.ErrUnsuitable) || w != nil {
		t.Errorf("with a key that cannot wrap: %v, %v", w, err)
	}
}

func TestRecordMAC(t *testing.T) {
	k, other := vaultKey(t, sequence(32, 1)), vaultKey(t, sequence(32, 2))
	sum := macOf(t, k, "keys/a/1", "body")
	check(t, k.Verify("keys/a/1", []byte("body"), sum))
	damaged(t, "another place", k.Verify("keys/a/2", []byte("body"), sum))
	damaged(t, "another body", k.Verify("keys/a/1", []byte("bodz"), sum))
	damaged(t, "the border moved", k.Verify("keys/a/", []byte("1body"), sum))
	damaged(t, "another vault", other.Verify("keys/a/1", []byte("body"), sum))
	damaged(t, "half a MAC", k.Verify("keys/a/1", []byte("body"), sum[:16]))
	damaged(t, "no MAC", k.Verify("keys/a/1", []byte("body"), nil))
}

func TestItemNames(t *testing.T) {
	k, other := vaultKey(t, sequence(32, 1)), vaultKey(t, sequence(32, 2))
	a, b := itemID(t, k, "a"), itemID(t, k, "b")
	if a != itemID(t, k, "a") || a == b || a == itemID(t, other, "a") {
		t.Error("item ids do not depend on vault and name, and on nothing else")
	}
	sealed := sealName(t, k, a, "a name, not UTF-8: \xff")
	if name, err := k.OpenName(a, sealed); err != nil || name != "a name, not UTF-8: \xff" {
		t.Errorf("%q, %v", name, err)
	}
	if bytes.Equal(sealed, sealName(t, k, a, "a name, not UTF-8: \xff")) {
		t.Error("a name is sealed twice under one nonce")
	}
	for what, open := range map[string]func() (string, error){
		"another item":  func() (string, error) { return k.OpenName(b, sealed) },
		"another vault": func() (string, error) { return other.OpenName(a, sealed) },
		"cut":           func() (string, error) { return k.OpenName(a, sealed[:len(sealed)-1]) },
		"nothing":       func() (string, error) { return k.OpenName(a, nil) },
	} {
		name, err := open()
		damaged(t, what, err)
		if name != "" {
			t.Errorf("%s: %q", what, name)
		}
	}
}

func TestParseIDs(t *testing.T) {
	vault, item := vaultKey(t, sequence(32, 1)).ID(), crypt.ItemID(sequence(16, 0xf0))
	if got, err := crypt.ParseVaultID(vault.String()); err != nil || got != vault {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := crypt.ParseItemID(item.String()); err != nil || got != item {
		t.Errorf("%v, %v", got, err)
	}
	v, i := vault.String(), item.String()
	for _, s := range []string{"", v[:31], v + "a", strings.ToUpper(v), v[:31] + "1", v + "\n", v[:16] + "\n" + v[16:], v[:31] + "=", i} {
		if got, err := crypt.ParseVaultID(s); err == nil {
			t.Errorf("vault id %q is read as %v", s, got)
		}
	}
	last := strings.IndexByte("abcdefghijklmnopqrstuvwxyz234567", i[25])
	alias := i[:25] + string("abcdefghijklmnopqrstuvwxyz234567"[last^1]) // the same sixteen bytes
	for _, s := range []string{"", i[:25], i + "a", strings.ToUpper(i), i + "\r\n", i + "======", alias, v} {
		if got, err := crypt.ParseItemID(s); err == nil {
			t.Errorf("item id %q is read as %v", s, got)
		}
	}
}

// TestRedaction looks for key bytes in everything that a key can be printed as.
func TestRedaction(t *testing.T) {
	raw := sequence(64, 0xa0)
	k, s := vaultKey(t, raw[:32]), secretOf(t, raw)
	object, _ := s.NewObject(crypt.Place{Kind: crypt.Pack})
	for name, v := range map[string]any{"vault key": k, "secret": s, "object": object, "namer": namer(t, s)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); got != "[redacted]" {
				t.Errorf("%s in %s: %s", name, verb, got)
			}
		}
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("m", "key", v, "in", struct{ Key any }{v}, "all", []any{v})
		}
		b, err := json.Marshal(map[string]any{"key": v, "in": struct{ Key any }{v}})
		check(t, err)
		out.Write(b)
		fmt.Fprintf(&out, "%+v %#v", struct{ Key any }{v}, []any{v}) // exported fields are asked
		if n := strings.Count(out.String(), "[redacted]"); n != 10 {
			t.Errorf("%s is redacted in %d places of 10: %s", name, n, out.String())
		}
		hidden := struct{ key any }{v} // hidden ones are not
		fmt.Fprintf(&out, "%v %+v %#v", hidden, hidden, hidden)
		for _, leak := range []string{string(raw[4:8]), hex.EncodeToString(raw[4:8]), "164 165 166", "0xa4, 0xa5", "164,165"} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%s leaks: %s", name, out.String())
			}
		}
	}
}

// keepingKey keeps the slice that it hands out, to look at it later.
type keepingKey struct {
	plainKey
	given *[]byte
}

func (k keepingKey) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	b, err := k.plainKey.Unwrap(ctx, w)
	*k.given = b
	return b, err
}

// TestOpenZeroesWhatWasUnwrapped: also when it is refused.
func TestOpenZeroesWhatWasUnwrapped(t *testing.T) {
	var given []byte
	keeping := kek.NewRing(keepingKey{given: &given})
	open := map[string]func(){
		"vault key":       func() { crypt.OpenVaultKey(t.Context(), keeping, wrapped(t, sequence(32, 1)), crypt.VaultID{}) }, //nolint:errcheck // either way
		"short vault key": func() { crypt.OpenVaultKey(t.Context(), keeping, wrapped(t, sequence(31, 1)), crypt.VaultID{}) }, //nolint:errcheck // either way
		"secret":          func() { crypt.OpenSecret(t.Context(), keeping, wrapped(t, sequence(64, 1))) },                    //nolint:errcheck // either way
		"long secret":     func() { crypt.OpenSecret(t.Context(), keeping, wrapped(t, sequence(65, 1))) },                    //nolint:errcheck // either way
	}
	for name, f := range open {
		given = nil
		f()
		if len(given) == 0 || !bytes.Equal(given, make([]byte, len(given))) {
			t.Errorf("%s: %x is left in memory", name, given)
		}
	}
}
