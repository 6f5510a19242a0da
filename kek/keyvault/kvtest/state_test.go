package kvtest_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// TestKeyStates: what a version may do by its attributes. What was wrapped before
// is unwrapped after expiry, but not while the version is disabled.
func TestKeyStates(t *testing.T) {
	at := newClock()
	s := kvtest.Start(t, kvtest.Options{Clock: at.Now})
	version := s.CreateKey("corp", "backup", kvtest.KeyOptions{NotBefore: at.Now().Add(time.Hour), Expires: at.Now().Add(2 * time.Hour)})
	c := keys(t, s)
	got, err := c.GetKey(t.Context(), "backup", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	value := sealed(t, public(t, got.Key), []byte("secret"))
	wrap := func() error {
		_, err := c.WrapKey(t.Context(), "backup", version, operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
		return err
	}
	opens := func() {
		t.Helper()
		if opened, err := unwrap(t.Context(), c, "backup", version, value); err != nil || string(opened) != "secret" {
			t.Errorf("unwrap: %q, %v", opened, err)
		}
	}
	wantError(t, wrap(), http.StatusForbidden, "KeyNotYetValid")
	opens()
	at.Advance(time.Hour)
	if err := wrap(); err != nil {
		t.Error(err)
	}
	opens()
	at.Advance(time.Hour)
	wantError(t, wrap(), http.StatusForbidden, "KeyExpired")
	opens()

	s.Disable("corp", "backup", "")
	_, err = unwrap(t.Context(), c, "backup", version, value)
	wantError(t, err, http.StatusForbidden, "KeyDisabled", "Operation unwrapKey is not allowed on a disabled key.")
	if got, err = c.GetKey(t.Context(), "backup", version, nil); err != nil || *got.Attributes.Enabled {
		t.Errorf("a disabled version is fetched and says so: %+v, %v", got.Attributes, err)
	}
	s.Enable("corp", "backup", version)
	opens()
	s.Update("corp", "backup", version, kvtest.Update{Ops: []string{"wrapKey"}, Expires: &time.Time{}})
	_, err = unwrap(t.Context(), c, "backup", version, value)
	wantError(t, err, http.StatusForbidden, "is not permitted on this key")
	if err := wrap(); err != nil {
		t.Errorf("without an end: %v", err)
	}
}

// TestDisabledWraps: one version is disabled, the other is not, and a server can be
// as lax as the service was seen to be.
func TestDisabledWraps(t *testing.T) {
	for _, lax := range []bool{false, true} {
		s := kvtest.Start(t, kvtest.Options{DisabledWraps: lax})
		old := s.CreateKey("corp", "backup", kvtest.KeyOptions{})
		s.Rotate("corp", "backup")
		s.Disable("corp", "backup", old)
		c := keys(t, s)
		secret := operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret"))
		if _, err := c.WrapKey(t.Context(), "backup", "", secret, nil); err != nil {
			t.Error(err)
		}
		if _, err := c.WrapKey(t.Context(), "backup", old, secret, nil); (err == nil) != lax {
			t.Errorf("lax %v: %v", lax, err)
		}
	}
}

// TestDeletion goes round: deleted, in the way, recovered, deleted, and gone after
// the days of its vault.
func TestDeletion(t *testing.T) {
	at := newClock()
	s := kvtest.Start(t, kvtest.Options{Clock: at.Now, Recovery: kvtest.CustomizedPurgeable, RecoverableDays: 10, TokenLifetime: 90 * 24 * time.Hour})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	c := keys(t, s)
	deleted, err := c.DeleteKey(t.Context(), "backup", nil)
	if err != nil || *deleted.Attributes.RecoveryLevel != "CustomizedRecoverable+Purgeable" || *deleted.Attributes.RecoverableDays != 10 ||
		!deleted.ScheduledPurgeDate.Equal(at.Now().AddDate(0, 0, 10)) || !deleted.DeletedDate.Equal(at.Now()) {
		t.Errorf("deleted %+v, %v", deleted, err)
	}
	_, err = c.GetKey(t.Context(), "backup", "", nil)
	wantError(t, err, http.StatusNotFound, "KeyNotFound")
	_, err = unwrap(t.Context(), c, "backup", deleted.Key.KID.Version(), make([]byte, 256))
	wantError(t, err, http.StatusNotFound, "KeyNotFound")
	_, err = c.CreateKey(t.Context(), "backup", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil)
	wantError(t, err, http.StatusConflict, "ObjectIsDeletedButRecoverable")
	if got, err := c.GetDeletedKey(t.Context(), "backup", nil); err != nil || *got.RecoveryID != s.VaultURL("corp")+"/deletedkeys/backup" {
		t.Errorf("deleted key %+v, %v", got, err)
	}
	if back, err := c.RecoverDeletedKey(t.Context(), "backup", nil); err != nil || back.Key.KID.Version() != deleted.Key.KID.Version() {
		t.Errorf("recovered %+v, %v", back.Key, err)
	}
	if _, err := c.GetKey(t.Context(), "backup", "", nil); err != nil {
		t.Error(err)
	}
	s.Delete("corp", "backup")
	at.Advance(10 * 24 * time.Hour)
	_, err = c.RecoverDeletedKey(t.Context(), "backup", nil)
	wantError(t, err, http.StatusNotFound)
	if _, err = c.CreateKey(t.Context(), "backup", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil); err != nil {
		t.Errorf("the name is free again: %v", err)
	}
}

func TestPurge(t *testing.T) {
	for level, want := range map[kvtest.Recovery]struct {
		days   int32
		delete bool // a deleted key can be recovered
		purge  bool
	}{
		kvtest.Purgeable:               {0, false, false},
		kvtest.RecoverablePurgeable:    {90, true, true},
		kvtest.Recoverable:             {90, true, false},
		kvtest.RecoverableSubscription: {90, true, false},
		kvtest.CustomizedPurgeable:     {7, true, true},
		kvtest.CustomizedRecoverable:   {7, true, false},
		kvtest.CustomizedSubscription:  {7, true, false},
	} {
		s := kvtest.Start(t, kvtest.Options{})
		s.CreateKey("corp", "backup", kvtest.KeyOptions{Material: shared(t)})
		s.SetRecovery("corp", level, 0)
		c := keys(t, s)
		got, err := c.GetKey(t.Context(), "backup", "", nil)
		if err != nil || *got.Attributes.RecoveryLevel != string(level) || *got.Attributes.RecoverableDays != want.days {
			t.Errorf("%s: %+v, %v", level, got.Attributes, err)
		}
		s.Delete("corp", "backup")
		if _, err := c.GetDeletedKey(t.Context(), "backup", nil); (err == nil) != want.delete {
			t.Errorf("%s: deleted key: %v", level, err)
		}
		_, err = c.PurgeDeletedKey(t.Context(), "backup", nil)
		switch {
		case want.purge && err != nil:
			t.Errorf("%s: purge: %v", level, err)
		case want.delete && !want.purge:
			wantError(t, err, http.StatusForbidden, "purge protection is enabled")
		}
	}
}

// TestPropagation: what is changed shows ten minutes later, and the answer to the
// change shows it at once.
func TestPropagation(t *testing.T) {
	at := newClock()
	s := kvtest.Start(t, kvtest.Options{Clock: at.Now, Propagation: kvtest.Propagation})
	version := s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	c := keys(t, s)
	works := func(want bool) {
		t.Helper()
		got, err := c.WrapKey(t.Context(), "backup", version, operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
		if (err == nil) != want {
			t.Errorf("wrap: %s, %v; want success %v", got.Result, err, want)
		}
	}
	around := func(before bool) {
		t.Helper()
		works(before)
		at.Advance(kvtest.Propagation - time.Second)
		works(before)
		at.Advance(time.Second)
		works(!before)
	}
	updated, err := c.UpdateKey(t.Context(), "backup", version, azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: to.Ptr(false)}}, nil)
	if err != nil || *updated.Attributes.Enabled {
		t.Errorf("the answer to the change: %+v, %v", updated.Attributes, err)
	}
	around(true)
	s.Enable("corp", "backup", "")
	around(false)
	s.Deny(kvtest.Scope{Vault: "corp"}, kvtest.OpWrap)
	around(true)
	s.Allow(kvtest.Scope{Vault: "corp"})
	around(false)
	s.Delete("corp", "backup")
	around(true)
	s.Recover("corp", "backup")
	_, err = c.CreateKey(t.Context(), "backup", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil)
	wantError(t, err, http.StatusConflict, "ObjectIsBeingRecovered")
	around(false)
}

// TestState: a server continues another one, for the same clients.
func TestState(t *testing.T) {
	changes := 0
	first := kvtest.Start(t, kvtest.Options{Vaults: []string{"corp", "other"}, Changed: func() { changes++ }})
	version := first.CreateKey("corp", "backup", kvtest.KeyOptions{})
	first.CreateKey("corp", "gone", kvtest.KeyOptions{EC: true})
	first.Delete("corp", "gone")
	first.Deny(kvtest.Scope{Key: "backup"}, kvtest.OpWrap)
	first.AddSecretClient(appID, secret)
	if changes != 5 {
		t.Errorf("told of %d changes, want 5", changes)
	}
	state, err := first.State()
	if err != nil {
		t.Fatal(err)
	}
	address := first.Address()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.CAFile()); err == nil {
		t.Error("the CA file is there after Close")
	}
	second := kvtest.Start(t, kvtest.Options{Listen: address, State: state})
	if second.Tenant() != first.Tenant() || string(second.CAPEM()) != string(first.CAPEM()) || second.VaultURL("corp") != first.VaultURL("corp") {
		t.Error("tenant, certificate or address is another one")
	}
	c := keys(t, second)
	got, err := c.GetKey(t.Context(), "backup", "", nil)
	if err != nil || got.Key.KID.Version() != version || !public(t, got.Key).Equal(first.Material("corp", "backup", "").Public()) {
		t.Errorf("key %+v, %v", got.Key, err)
	}
	_, err = c.WrapKey(t.Context(), "backup", "", operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
	wantError(t, err, http.StatusForbidden, "ForbiddenByRbac")
	if back, err := c.RecoverDeletedKey(t.Context(), "gone", nil); err != nil || *back.Key.Kty != azkeys.KeyTypeEC {
		t.Errorf("deleted key: %+v, %v", back.Key, err)
	}
	if _, err := kvtest.New(kvtest.Options{State: []byte("{")}); err == nil {
		t.Error("broken state was taken")
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:443", "localhost:0", "127.0.0.1"} {
		if s, err := kvtest.New(kvtest.Options{Listen: address}); err == nil {
			s.Close()
			t.Errorf("%s was taken", address)
		}
	}
	if _, err := kvtest.New(kvtest.Options{Vaults: []string{"a.b"}}); err == nil || !strings.Contains(err.Error(), "vault name") {
		t.Errorf("a vault with a dot: %v", err)
	}
}

func TestCommand(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{Recovery: kvtest.RecoverablePurgeable})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{Material: shared(t)})
	c := keys(t, s)
	wrap := func() error {
		_, err := c.WrapKey(t.Context(), "backup", "", operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
		return err
	}
	for _, step := range []struct {
		verb  string
		works bool
	}{{"disable", false}, {"enable", true}, {"deny", false}, {"allow", true}, {"rotate", true}, {"delete", false}, {"recover", true}} {
		if err := s.Command(step.verb, "corp", "backup"); err != nil {
			t.Fatalf("%s: %v", step.verb, err)
		}
		if err := wrap(); (err == nil) != step.works {
			t.Errorf("after %s: %v", step.verb, err)
		}
	}
	if n := len(s.Versions("corp", "backup")); n != 2 {
		t.Errorf("%d versions, want 2", n)
	}
	for _, wrong := range [][3]string{{"disable", "corp", "none"}, {"disable", "none", "backup"}, {"deny", "corp", "none"}, {"recover", "corp", "backup"}, {"shred", "corp", "backup"}} {
		if err := s.Command(wrong[0], wrong[1], wrong[2]); err == nil {
			t.Errorf("%q: no error", wrong)
		}
	}
}
