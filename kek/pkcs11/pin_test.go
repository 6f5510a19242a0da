//go:build cgo && linux

package pkcs11_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
)

const wrongPIN = "not-the-pin"

// TestWrongPIN counts how often a wrong PIN reaches the token: once.
func TestWrongPIN(t *testing.T) {
	for name, make := range map[string]func(testing.TB) testkit.Token{"SoftHSM": testkit.SoftHSM, "NSS": testkit.NSS} {
		t.Run(name, func(t *testing.T) {
			tok, faults := testkit.Faulty(t, make(t))
			pool, b := newPool(t)
			create(t, pool, tok.URI("kek"))
			before := faults.Calls(testkit.Login)

			tok.WritePIN(t, wrongPIN)
			for range 5 {
				_, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
				denied(t, err, "not tried again, so that the token is not locked", tok.PINFile)
				b.pass(time.Hour)
			}
			if n := faults.Calls(testkit.Login) - before; n != 1 {
				t.Errorf("the wrong PIN was tried %d times", n)
			}
			if n := strings.Count(b.String(), "token refuses the pin"); n != 1 {
				t.Errorf("the log says so %d times:\n%s", n, b)
			}
			if strings.Contains(b.String(), wrongPIN) {
				t.Error("the log tells the PIN")
			}

			tok.WritePIN(t, tok.PIN)
			if err := open(t, pool, tok.URI("kek")).Check(t.Context()); err != nil {
				t.Errorf("Check with the right PIN: %v", err)
			}
			if n := faults.Calls(testkit.Login) - before; n != 2 {
				t.Errorf("there were %d logins", n)
			}
		})
	}
}

// TestWrongPINBesideOpenToken: a library takes any PIN while the token is open. We
// do not, and risk nothing to find out.
func TestWrongPINBesideOpenToken(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, _ := newPool(t)
	create(t, pool, tok.URI("kek"))
	key := open(t, pool, tok.URI("kek"))
	before := faults.Calls(testkit.Login)

	other := tok
	other.PINFile = t.TempDir() + "/pin"
	other.WritePIN(t, wrongPIN)
	_, err := pool.Versions(t.Context(), "second", other.URI("kek"))
	denied(t, err, "was not tried", other.PINFile)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check of the open key: %v", err)
	}
	other.WritePIN(t, tok.PIN)
	open(t, pool, other.URI("kek"))
	if n := faults.Calls(testkit.Login) - before; n != 0 {
		t.Errorf("there were %d more logins", n)
	}
}

// TestPINChanges: the PIN is wrong when a lost connection is made anew.
func TestPINChanges(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	before := faults.Calls(testkit.Login)

	tok.WritePIN(t, wrongPIN)
	faults.Fail(testkit.DecryptInit, deviceError, 3)
	for range 5 {
		denied(t, key.Check(t.Context()), "not tried again", tok.PINFile)
		b.pass(time.Minute)
	}
	if n := faults.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("the wrong PIN was tried %d times", n)
	}
	faults.Fail(testkit.DecryptInit, 0, 0)
	tok.WritePIN(t, tok.PIN)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check with the right PIN: %v", err)
	}
}

// TestPINChangedOnToken: the security officer gives the token another PIN under the
// running agent. What is logged in goes on; the next connection is refused, once;
// and when the new PIN is where pin-source says, all is well again.
func TestPINChangedOnToken(t *testing.T) {
	const newPIN = "pin-of-softhsm-4712"
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, b := newPool(t)
	create(t, pool, tok.URI("kek"))
	key := open(t, pool, tok.URI("kek"))
	changePIN(t, tok, newPIN)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check while logged in: %v", err)
	}
	before := faults.Calls(testkit.Login)
	faults.Fail(testkit.DecryptInit, sessionInvalid, 1)
	for range 10 {
		denied(t, key.Check(t.Context()), "not tried again", tok.PINFile)
		if steps := pool.Check(t.Context(), tok.URI("kek")); steps[0].Verdict != kek.Failed || !strings.Contains(steps[0].Next, "tried once") {
			t.Errorf("the preflight says %+v", steps[0])
		}
		b.pass(time.Hour)
	}
	if n := faults.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("the old PIN was tried %d times", n)
	}
	tok.WritePIN(t, newPIN)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check with the new PIN: %v", err)
	}
}

// changePIN changes the PIN of a token that this process has open.
func changePIN(t *testing.T, tok testkit.Token, pin string) {
	t.Helper()
	lib := p11.New(tok.Module)
	defer lib.Destroy()
	slots, err := lib.GetSlotList(true)
	must(t, err)
	for _, slot := range slots {
		info, err := lib.GetTokenInfo(slot)
		must(t, err)
		if info.Label != tok.Label {
			continue
		}
		session, err := lib.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		must(t, err)
		must(t, lib.SetPIN(session, tok.PIN, pin))
		must(t, lib.CloseSession(session))
		return
	}
	t.Fatalf("the library has no token %q", tok.Label)
}

func TestLockedPIN(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, _ := newPool(t)
	create(t, pool, tok.URI("kek"))
	before := faults.Calls(testkit.Login)
	faults.Fail(testkit.Login, pinLocked, 1)
	for range 3 {
		_, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
		denied(t, err, "locked", "security officer", "restart the service")
	}
	if n := faults.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("there were %d logins", n)
	}
}

func TestNoPIN(t *testing.T) {
	tok := testkit.SoftHSM(t)
	pool, _ := newPool(t)
	create(t, pool, tok.URI("kek"))
	without, _, _ := strings.Cut(tok.URI("kek"), "&pin-source")
	_, err := pool.Versions(t.Context(), "main", without)
	denied(t, err, "pin-source=file:/path")

	if err := os.Chmod(tok.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = pool.Versions(t.Context(), "main", tok.URI("kek"))
	denied(t, err, "chmod 600 "+tok.PINFile)

	if err := os.Remove(tok.PINFile); err != nil {
		t.Fatal(err)
	}
	_, err = pool.Versions(t.Context(), "main", tok.URI("kek"))
	denied(t, err, tok.PINFile)

	t.Setenv("COFFER_TEST_PIN", tok.PIN)
	if err := open(t, pool, without+"&pin-source=env:COFFER_TEST_PIN").Check(t.Context()); err != nil {
		t.Errorf("Check with the PIN of the environment: %v", err)
	}
}

func denied(t *testing.T, err error, says ...string) {
	t.Helper()
	if !errors.Is(err, kek.ErrDenied) || errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("error is %v, want %v alone", err, kek.ErrDenied)
		return
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error is %v; it does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), wrongPIN) {
		t.Errorf("error tells the PIN: %v", err)
	}
}
