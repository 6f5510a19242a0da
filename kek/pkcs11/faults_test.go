//go:build cgo && linux

package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/pkcs11"
)

// Codes that tests make a library answer (pkcs11t.h).
const (
	generalError     = 0x005
	functionFailed   = 0x006
	deviceError      = 0x030
	deviceMemory     = 0x031
	deviceRemoved    = 0x032
	keyHandleInvalid = 0x060
	handleInvalid    = 0x082
	operationActive  = 0x090
	pinLocked        = 0x0A4
	sessionClosed    = 0x0B0
	sessionInvalid   = 0x0B3
	tokenNotPresent  = 0x0E0
	notLoggedIn      = 0x101
	notInitialized   = 0x190
)

// TestServerDies kills the HSM under load and starts it again: the same Key is well
// again, and nothing but ErrUnreachable was ever said.
func TestServerDies(t *testing.T) {
	tok, server := testkit.ServeHSM(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	w := wrap(t, key)

	working, stop := make(chan struct{}, 4), make(chan struct{})
	lost := make(chan error, 4)
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for first := true; ; first = false {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := key.Unwrap(t.Context(), w); err != nil {
					lost <- err
					return
				}
				if first {
					working <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-working
	}
	server.Kill(t)
	for range 4 {
		if err := <-lost; !errors.Is(err, kek.ErrUnreachable) || errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("Unwrap as the server dies = %v, want %v", err, kek.ErrUnreachable)
		}
	}
	close(stop)
	load.Wait()
	for range 5 { // it stays so, however often one asks
		if _, err := key.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrUnreachable) {
			t.Errorf("Unwrap while the server is dead = %v, want %v", err, kek.ErrUnreachable)
		}
		b.pass(time.Minute)
	}
	w2 := wrap(t, key) // needs nobody

	server.Start(t)
	b.pass(time.Minute)
	for _, w := range []kek.Wrapped{w, w2} {
		if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
			t.Errorf("Unwrap after the server is back = %q, %v", secret, err)
		}
	}
	for _, line := range []string{"token lost", "token is back"} {
		if n := strings.Count(b.String(), line); n != 1 {
			t.Errorf("the log says %q %d times:\n%s", line, n, b)
		}
	}
}

// TestBacksOff counts how often a dead token is tried.
func TestBacksOff(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	before := faults.Calls(testkit.Initialize)
	faults.Fail(testkit.Initialize, deviceRemoved, 1000)
	faults.Fail(testkit.DecryptInit, deviceRemoved, 1)
	for range 60 * 10 { // ten minutes of a call every second
		if err := key.Check(t.Context()); !errors.Is(err, kek.ErrUnreachable) {
			t.Fatalf("Check = %v, want %v", err, kek.ErrUnreachable)
		}
		b.pass(time.Second)
	}
	if n := faults.Calls(testkit.Initialize) - before; n < 20 || n > 30 {
		t.Errorf("a dead token was tried %d times in ten minutes", n)
	}
	faults.Fail(testkit.Initialize, 0, 0)
	b.pass(30 * time.Second)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check when it is back: %v", err)
	}
}

// TestHealsAtOnce makes one call fail with each code of a lost connection. The
// caller notices nothing.
func TestHealsAtOnce(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	w := wrap(t, key)
	for _, fn := range []testkit.Function{testkit.DecryptInit, testkit.Decrypt} {
		for _, code := range []uint64{
			generalError, functionFailed, deviceError, deviceRemoved, keyHandleInvalid, handleInvalid,
			operationActive, sessionClosed, sessionInvalid, tokenNotPresent, notLoggedIn, notInitialized, 0x80001234,
		} {
			faults.Fail(fn, code, 1)
			if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
				t.Errorf("Unwrap with code %#x = %q, %v", code, secret, err)
			}
			b.pass(time.Minute)
		}
	}
}

// TestStuckSession: a session that is stuck in an operation answers
// CKR_OPERATION_ACTIVE to everyone who gets it, until the library is initialised
// anew. That is done once, whoever asks, and nobody notices.
func TestStuckSession(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	w, before := wrap(t, key), faults.Calls(testkit.Initialize)
	const rounds = 3
	for range rounds {
		faults.Sicken(testkit.DecryptInit, operationActive)
		var load sync.WaitGroup
		for range 8 {
			load.Go(func() {
				if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
					t.Errorf("Unwrap = %q, %v", secret, err)
				}
			})
		}
		load.Wait()
		b.pass(time.Minute)
	}
	if n := faults.Calls(testkit.Initialize) - before; n != rounds {
		t.Errorf("the library was initialised %d times for %d faults", n, rounds)
	}
}

// TestToldApart: a key that was deleted, a token that was pulled and a PIN that was
// changed are three things, and the same key says which, in turn.
func TestToldApart(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, b := keyOn(t, tok)
	w := wrap(t, key)
	ask := func(what string, want error) {
		t.Helper()
		b.pass(time.Hour)
		_, unwrap := key.Unwrap(t.Context(), w)
		for _, err := range []error{key.Check(t.Context()), unwrap} {
			for _, sentinel := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing, kek.ErrUnsuitable, kek.ErrWrongKey} {
				if errors.Is(err, sentinel) != (sentinel == want) {
					t.Errorf("%s: error is %v, want %v alone", what, err, want)
				}
			}
		}
	}
	ask("all is well", nil)
	restore := tok.Pull(t)
	faults.Fail(testkit.DecryptInit, tokenNotPresent, 1)
	ask("the token is pulled", kek.ErrUnreachable)
	restore()
	ask("it is back", nil)

	tok.WritePIN(t, wrongPIN)
	faults.Fail(testkit.DecryptInit, sessionClosed, 1)
	ask("the PIN is another", kek.ErrDenied)
	tok.WritePIN(t, tok.PIN)
	ask("it is right again", nil)

	token(t, tok, func(c *crypto11.Context) { must(t, onlyPair(t, c).Delete()) })
	ask("the key is deleted", kek.ErrMissing)
}

// TestOtherAnswers are those that no new connection would change.
func TestOtherAnswers(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, _ := keyOn(t, tok)
	w, before := wrap(t, key), faults.Calls(testkit.Initialize)
	for code, want := range map[uint64]error{
		0x40: kek.ErrWrongKey, 0x41: kek.ErrWrongKey, deviceMemory: kek.ErrUnreachable, 0x200: kek.ErrDenied,
	} {
		faults.Fail(testkit.DecryptInit, code, 1)
		if _, err := key.Unwrap(t.Context(), w); !errors.Is(err, want) {
			t.Errorf("Unwrap with code %#x = %v, want %v", code, err, want)
		}
	}
	w.Algorithm = kek.OAEPSHA256 // which SoftHSM cannot
	if _, err := key.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrUnsuitable) {
		t.Errorf("Unwrap with SHA-256 = %v, want %v", err, kek.ErrUnsuitable)
	}
	if n := faults.Calls(testkit.Initialize) - before; n != 0 {
		t.Errorf("the library was initialised %d times more", n)
	}
}

// TestNegotiationIsNotFooled: a fault at the moment of the test does not make a key
// one of SHA-1.
func TestNegotiationIsNotFooled(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.NSS(t))
	pool, b := newPool(t)
	create(t, pool, tok.URI("kek"))
	for _, code := range []uint64{deviceError, generalError, operationActive, deviceMemory} {
		faults.Fail(testkit.DecryptInit, code, 1)
		keys, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
		if err != nil {
			if !errors.Is(err, kek.ErrUnreachable) {
				t.Errorf("Versions with code %#x = %v", code, err)
			}
			continue
		}
		if got := keys[0].Ref().Algorithm; got != kek.OAEPSHA256 {
			t.Errorf("with code %#x the key is one of %v", code, got)
		}
		if err := keys[0].Close(); err != nil {
			t.Error(err)
		}
		b.pass(time.Minute)
	}
}

// TestSiblings: the tokens of a library share its fate and not their faults.
func TestSiblings(t *testing.T) {
	one := testkit.SoftHSM(t)
	two := one.Sibling(t, "second token")
	shimmed, faults := testkit.Faulty(t, one)
	one.Module, two.Module = shimmed.Module, shimmed.Module
	pool, b := newPool(t)
	create(t, pool, one.URI("kek"))
	create(t, pool, two.URI("kek"))
	first, second := open(t, pool, one.URI("kek")), open(t, pool, two.URI("kek"))
	beat, stop := make(chan struct{}), make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for {
			if err := second.Check(t.Context()); err != nil {
				t.Errorf("Check of one token: %v", err)
			}
			select {
			case beat <- struct{}{}:
			case <-stop:
				return
			}
		}
	})
	before := faults.Calls(testkit.Initialize)
	for range 20 { // each fault hits one of them, and closes the connections of both
		b.pass(time.Minute)
		faults.Fail(testkit.DecryptInit, sessionInvalid, 1)
		if err := first.Check(t.Context()); err != nil {
			t.Errorf("Check of the other: %v", err)
		}
		<-beat
		<-beat // so one Check has begun and ended since
	}
	close(stop)
	load.Wait()
	if n := faults.Calls(testkit.Initialize) - before; n == 0 {
		t.Error("the library was never initialised anew")
	}
	for _, key := range []kek.Key{first, second} {
		if err := key.Check(t.Context()); err != nil {
			t.Errorf("Check when all is quiet: %v", err)
		}
	}
}

// TestHangs: calls that never come back end for their callers, and there are only
// so many of them.
func TestHangs(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	key, _ := keyOn(t, tok)
	w := wrap(t, key)
	faults.Hang(testkit.Decrypt)
	defer faults.Release(testkit.Decrypt)
	before := faults.Calls(testkit.Decrypt)
	var last error
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, last = key.Unwrap(ctx, w)
		cancel()
		if !errors.Is(last, kek.ErrUnreachable) || !errors.Is(last, context.DeadlineExceeded) {
			t.Fatalf("Unwrap in a hung token = %v, want %v", last, kek.ErrUnreachable)
		}
	}
	if n := faults.Calls(testkit.Decrypt) - before; n > 16 {
		t.Errorf("%d calls hang at a time", n)
	}
	if !strings.Contains(last.Error(), "do not come back") {
		t.Errorf("the last error does not tell of the hung ones: %v", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Unwrap(ctx, w); !errors.Is(err, context.Canceled) || errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("Unwrap that is cancelled = %v, want %v alone", err, context.Canceled)
	}
	faults.Release(testkit.Decrypt)
	if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap when it is back = %q, %v", secret, err)
	}
}

// TestHungForGood: a call that never comes back ends for its caller, though its
// context has no end.
func TestHungForGood(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool := pkcs11.NewPool(pkcs11.Config{Log: slog.New(slog.DiscardHandler), Now: time.Now, CallWait: 200 * time.Millisecond})
	create(t, pool, tok.URI("kek"))
	key := open(t, pool, tok.URI("kek"))
	w := wrap(t, key)
	faults.Hang(testkit.Decrypt)
	defer faults.Release(testkit.Decrypt)
	if _, err := key.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("Unwrap that hangs = %v, want %v", err, kek.ErrUnreachable)
	}
	if err := key.Check(t.Context()); !errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("Check that hangs = %v, want %v", err, kek.ErrUnreachable)
	}
	faults.Release(testkit.Decrypt)
	if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap when it is back = %q, %v", secret, err)
	}
}

// TestHungClose: Close ends although a call hangs, and later all is well.
func TestHungClose(t *testing.T) {
	tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
	pool, _ := newPool(t)
	create(t, pool, tok.URI("kek"))
	keys, err := pool.Versions(t.Context(), "main", tok.URI("kek"))
	if err != nil {
		t.Fatal(err)
	}
	key := keys[0]
	faults.Hang(testkit.Decrypt)
	defer faults.Release(testkit.Decrypt)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := key.Check(ctx); !errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("Check = %v", err)
	}
	if err := key.Close(); !errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("Close with a hung call = %v, want %v", err, kek.ErrUnreachable)
	}
	faults.Release(testkit.Decrypt)
	if err := open(t, pool, tok.URI("kek")).Check(t.Context()); err != nil {
		t.Errorf("Check later: %v", err)
	}
}

// TestHungOpen: so does Versions, wherever the library hangs.
func TestHungOpen(t *testing.T) {
	for _, fn := range []testkit.Function{testkit.Initialize, testkit.Login, testkit.FindObjectsInit, testkit.DecryptInit} {
		t.Run(fmt.Sprint(int(fn)), func(t *testing.T) {
			tok, faults := testkit.Faulty(t, testkit.SoftHSM(t))
			pool, _ := newPool(t)
			create(t, pool, tok.URI("kek"))
			faults.Hang(fn)
			defer faults.Release(fn)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				began := time.Now()
				_, err := pool.Versions(ctx, "main", tok.URI("kek"))
				cancel()
				if !errors.Is(err, kek.ErrUnreachable) {
					t.Errorf("Versions of a hung token = %v, want %v", err, kek.ErrUnreachable)
				}
				if took := time.Since(began); took > 1500*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			}
			faults.Release(fn)
			if err := open(t, pool, tok.URI("kek")).Check(t.Context()); err != nil {
				t.Errorf("Check later: %v", err)
			}
		})
	}
}

func wrap(t *testing.T, key kek.Key) kek.Wrapped {
	t.Helper()
	w, err := key.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return w
}
