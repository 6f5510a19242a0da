package keyvault_test

import (
	"crypto/fips140"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

func versions(keys []kek.Key) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k.Ref().Version)
	}
	return all
}

// TestVersions: a URI without a version opens all of them, the newest first, over
// several pages whose order says nothing; each opens what it wrapped. One with a
// version opens that.
func TestVersions(t *testing.T) {
	b := newBench(t, kvtest.Options{PageSize: 2, EmptyPages: true})
	var made []string
	for range 7 {
		made = append(made, b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{}))
		b.pass(time.Hour)
	}
	keys := b.open(t, b.uri(""))
	newestFirst := slices.Clone(made)
	slices.Reverse(newestFirst)
	if got := versions(keys); !slices.Equal(got, newestFirst) {
		t.Errorf("versions are %v, want %v", got, newestFirst)
	}
	for _, k := range keys {
		if k.Ref().URI != b.uri("") || k.Ref().Name != "main" {
			t.Errorf("Ref is %+v", k.Ref())
		}
		unwrap(t, k, wrap(t, k, "of "+k.Ref().Version), "of "+k.Ref().Version)
	}
	for _, r := range b.server.Requests() {
		if r.Op == kvtest.OpUnwrap && r.Version == "" {
			t.Errorf("unwrap asked for the newest version: %+v", r)
		}
		if r.Op == kvtest.OpWrap || r.Op == kvtest.OpEncrypt {
			t.Errorf("the vault was asked to wrap: %+v", r)
		}
	}
	pinned := b.open(t, b.uri(made[2]))
	if got := versions(pinned); !slices.Equal(got, made[2:3]) || pinned[0].Ref() != keys[4].Ref() {
		t.Errorf("the pinned version opens as %v", got)
	}
}

// TestSameSecond: of two versions of one second, the one in front is the one that
// the vault takes for the newest.
func TestSameSecond(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	b := newBench(t, kvtest.Options{Clock: func() time.Time { return start }})
	for range 6 {
		newest := b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
		if got := b.open(t, b.uri(""))[0].Ref().Version; got != newest {
			t.Errorf("in front is %s, want %s", got, newest)
		}
	}
}

// TestNewestDisabled: an older version does not take the place of a disabled one.
// Older disabled versions are left out.
func TestNewestDisabled(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	first := b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	b.pass(time.Minute)
	second := b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	b.server.Disable(vaultName, keyName, second)
	_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrDenied, second, "disabled", "--enabled true", "new version")
	_, err = keyvault.Open(t.Context(), b.config(b.uri(second)))
	b.want(err, kek.ErrDenied, second, "disabled")
	if got := versions(b.open(t, b.uri(first))); !slices.Equal(got, []string{first}) {
		t.Errorf("the old version opens as %v", got)
	}
	b.server.Enable(vaultName, keyName, second)
	b.server.Disable(vaultName, keyName, first)
	if got := versions(b.open(t, b.uri(""))); !slices.Equal(got, []string{second}) {
		t.Errorf("versions are %v, want the enabled one", got)
	}
}

// TestOutsideDates: an expired version, or one that is not yet valid, opens old
// backups and wraps nothing.
func TestOutsideDates(t *testing.T) {
	for name, test := range map[string]struct {
		from, to time.Duration // 0: none
		says     string
	}{
		"expired":       {0, -time.Hour, "expired on "},
		"not yet valid": {time.Hour, 0, "is not valid before "},
	} {
		b := newBench(t, kvtest.Options{})
		k := b.made(kvtest.KeyOptions{})
		w := wrap(t, k, "secret")
		var u kvtest.Update
		date := b.Now().Add(test.from + test.to)
		if test.from != 0 {
			u.NotBefore = &date
		} else {
			u.Expires = &date
		}
		b.server.Update(vaultName, keyName, "", u)
		again := b.open(t, b.uri(""))[0]
		unwrap(t, again, w, "secret")
		_, err := again.Wrap([]byte("x"))
		b.want(err, kek.ErrUnsuitable, test.says, date.UTC().Format("2006-01-02"), "new version")
		if !strings.Contains(b.log(), "key opens and does not wrap") {
			t.Errorf("%s: the log says nothing of it", name)
		}
		if f := inspect(t, k); (u.NotBefore != nil) != (f.NotBefore.Unix() == date.Unix()) || (u.Expires != nil) != (f.Expires.Unix() == date.Unix()) {
			t.Errorf("%s: facts are %+v", name, f)
		}
		_, err = k.Wrap([]byte("x")) // which has learned it by Inspect
		b.want(err, kek.ErrUnsuitable, test.says)
	}
}

// TestExpiresLater: a key that is open stops wrapping when its date comes.
func TestExpiresLater(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{Expires: b.Now().Add(time.Hour)})
	w := wrap(t, k, "secret")
	b.pass(2 * time.Hour)
	_, err := k.Wrap([]byte("x"))
	b.want(err, kek.ErrUnsuitable, "expired on ")
	unwrap(t, k, w, "secret")
}

// TestUnsuitable: what cannot be a KEK is refused with what to do.
func TestUnsuitable(t *testing.T) {
	for name, test := range map[string]struct {
		o    kvtest.KeyOptions
		says []string
	}{
		"elliptic curve": {kvtest.KeyOptions{EC: true}, []string{`of type "EC"`, "--kty RSA"}},
		"small":          {kvtest.KeyOptions{Bits: 1024}, []string{"1024-bit", "2048, 3072 or 4096"}},
		"signs only":     {kvtest.KeyOptions{Ops: []string{"sign", "verify"}}, []string{"unwrapKey", "--ops"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kvtest.Options{})
			b.server.CreateKey(vaultName, keyName, test.o)
			_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
			b.want(err, kek.ErrUnsuitable, test.says...)
			b.pass(time.Minute)
			good := b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
			if got := versions(b.open(t, b.uri(""))); !slices.Equal(got, []string{good}) {
				t.Errorf("with a good version after it, %v open", got)
			}
			if !strings.Contains(b.log(), "older version of a key left out") {
				t.Error("the log does not say that a version was left out")
			}
		})
	}
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{Ops: []string{"unwrapKey"}})
	_, err := k.Wrap([]byte("x"))
	b.want(err, kek.ErrUnsuitable, "leave out wrapKey", "--ops wrapKey unwrapKey")
	if err := k.Check(t.Context()); err != nil {
		t.Errorf("Check of a key that only unwraps: %v", err)
	}
}

func inspect(t *testing.T, k kek.Key) kek.Facts {
	t.Helper()
	inspector, ok := k.(kek.Inspector)
	if !ok {
		t.Fatal("the key is no Inspector")
	}
	facts, err := inspector.Inspect(t.Context())
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	return facts
}

// TestFacts: what the vault says of a version.
func TestFacts(t *testing.T) {
	for level, want := range map[kvtest.Recovery][2]kek.Answer{
		kvtest.Purgeable:             {kek.No, kek.No},
		kvtest.RecoverablePurgeable:  {kek.Yes, kek.No},
		kvtest.Recoverable:           {kek.Yes, kek.Yes},
		kvtest.CustomizedPurgeable:   {kek.Yes, kek.No},
		kvtest.CustomizedRecoverable: {kek.Yes, kek.Yes},
	} {
		b := newBench(t, kvtest.Options{Recovery: level})
		if f := inspect(t, b.made(kvtest.KeyOptions{})); f.SoftDelete != want[0] || f.PurgeProtection != want[1] {
			t.Errorf("%s: soft delete %v, purge protection %v", level, f.SoftDelete, f.PurgeProtection)
		}
	}
	for _, hardware := range []bool{false, true} {
		b := newBench(t, kvtest.Options{})
		from, to := b.Now().Add(-time.Hour), b.Now().Add(time.Hour)
		k := b.made(kvtest.KeyOptions{Hardware: hardware, NotBefore: from, Expires: to})
		f := inspect(t, k)
		if f.Hardware != kek.AnswerOf(hardware) || f.Enabled != kek.Yes || f.MayUnwrap != kek.Yes {
			t.Errorf("facts of a key with hardware %v: %+v", hardware, f)
		}
		if f.NotBefore.Unix() != from.Unix() || f.Expires.Unix() != to.Unix() || f.Created.IsZero() || f.Updated.IsZero() {
			t.Errorf("dates: %+v", f)
		}
		b.server.Disable(vaultName, keyName, "")
		if f := inspect(t, k); f.Enabled != kek.No {
			t.Errorf("facts of a disabled key: %+v", f)
		}
		_, err := k.Wrap([]byte("x"))
		b.want(err, kek.ErrUnsuitable, "disabled")
	}
}

// TestCreate: a new key, a version of it like the one before, and its refusals.
func TestCreate(t *testing.T) {
	for _, hsm := range []bool{false, true} {
		b := newBench(t, kvtest.Options{ManagedHSM: hsm})
		first, err := keyvault.Create(t.Context(), b.config(b.uri("")), 0)
		if err != nil || first.Bits != kek.DefaultBits || first.Name != "main" || first.URI != b.uri("") {
			t.Fatalf("Create = %+v, %v", first, err)
		}
		k := b.open(t, b.uri(""))[0]
		if k.Ref() != first || inspect(t, k).Hardware != kek.AnswerOf(hsm) {
			t.Errorf("opens as %+v, made as %+v", k.Ref(), first)
		}
		unwrap(t, k, wrap(t, k, "secret"), "secret")
		b.pass(time.Minute)
		second, err := keyvault.Create(t.Context(), b.config(b.uri("")), 2048)
		if err != nil || second.Bits != 2048 || second.Version == first.Version {
			t.Fatalf("Create of a second version = %+v, %v", second, err)
		}
		if got := versions(b.open(t, b.uri(""))); !slices.Equal(got, []string{second.Version, first.Version}) {
			t.Errorf("versions are %v", got)
		}
		b.pass(time.Minute)
		third, err := keyvault.Create(t.Context(), b.config(b.uri("")), 0)
		if err != nil || third.Bits != 2048 {
			t.Errorf("a third version, of the size of the second = %+v, %v", third, err)
		}
		_, err = keyvault.Create(t.Context(), b.config(b.uri(first.Version)), 0)
		b.want(err, kek.ErrUnsuitable, "leave the version out")
		_, err = keyvault.Create(t.Context(), b.config(b.uri("")), 1024)
		b.want(err, kek.ErrUnsuitable, "1024-bit")
		b.server.Deny(kvtest.Scope{}, kvtest.OpCreate)
		_, err = keyvault.Create(t.Context(), b.config(b.uri("")), 0)
		b.want(err, kek.ErrDenied, "Key Vault Crypto Officer")
	}
}

// TestKeepsKind: the new version of an HSM key is one too.
func TestKeepsKind(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.made(kvtest.KeyOptions{Hardware: true})
	b.pass(time.Minute)
	if _, err := keyvault.Create(t.Context(), b.config(b.uri("")), 0); err != nil {
		t.Fatal(err)
	}
	if f := inspect(t, b.open(t, b.uri(""))[0]); f.Hardware != kek.Yes {
		t.Errorf("facts of the new version: %+v", f)
	}
}

// TestSHA1: what another client wrapped with SHA-1 opens.
func TestSHA1(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	public, ok := b.server.Material(vaultName, keyName, "").Public().(*rsa.PublicKey)
	if !ok {
		t.Fatal("not RSA")
	}
	w := wrap(t, k, "x")
	ciphertext, err := kek.WrapRSA(public, kek.OAEPSHA1, []byte("old"))
	if fips140.Enforced() {
		b.want(err, kek.ErrUnsuitable)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Algorithm, w.Ciphertext = kek.OAEPSHA1, ciphertext
	unwrap(t, k, w, "old")
}
