package keyvault_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// refused wants that Unwrap, Check and Open fail with class and say parts.
func (b *bench) refused(k kek.Key, w kek.Wrapped, class error, parts ...string) {
	b.t.Helper()
	secret, err := k.Unwrap(b.t.Context(), w)
	b.want(err, class, parts...)
	if secret != nil {
		b.t.Errorf("Unwrap returned %d bytes beside its error", len(secret))
	}
	b.want(k.Check(b.t.Context()), class, parts...)
	_, err = keyvault.Open(b.t.Context(), b.config(b.uri("")))
	b.want(err, class, parts...)
}

// TestDisabledBetween: disabled after a wrap, a key is denied until it is enabled
// again.
func TestDisabledBetween(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.Disable(vaultName, keyName, "")
	b.refused(k, w, kek.ErrDenied, "disabled", "--enabled true", k.Ref().Version)
	b.server.Enable(vaultName, keyName, "")
	unwrap(t, k, w, "secret")
}

// TestForbidden: a missing permission is denied, and says which role is missing.
func TestForbidden(t *testing.T) {
	for _, hsm := range []bool{false, true} {
		b := newBench(t, kvtest.Options{ManagedHSM: hsm})
		role := "Key Vault Crypto Service Encryption User"
		if hsm {
			role = "Managed HSM Crypto Service Encryption User"
		}
		k := b.made(kvtest.KeyOptions{})
		w := wrap(t, k, "secret")
		b.server.Deny(kvtest.Scope{Vault: vaultName, Key: keyName})
		b.refused(k, w, kek.ErrDenied, "ForbiddenByRbac", role, clientID)
		b.server.Allow(kvtest.Scope{Vault: vaultName, Key: keyName})
		b.server.CloseFirewall(vaultName)
		b.refused(k, w, kek.ErrDenied, "ForbiddenByFirewall", "Networking")
		b.server.OpenFirewall(vaultName)
		unwrap(t, k, w, "secret")
		for _, op := range []kvtest.Op{kvtest.OpGet, kvtest.OpVersions} {
			b.server.Deny(kvtest.Scope{}, op)
			_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
			b.want(err, kek.ErrDenied, role)
			b.server.Allow(kvtest.Scope{}, op)
		}
	}
}

// TestDeletedAndRecovered: a deleted key is missing, not denied, and is well when it
// is back. One that never was is missing too.
func TestDeletedAndRecovered(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrMissing, "check the name", "az keyvault key recover")
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.Delete(vaultName, keyName)
	b.refused(k, w, kek.ErrMissing, "az keyvault key recover --vault-name corp --name backup")
	_, err = keyvault.Create(t.Context(), b.config(b.uri("")), 0)
	b.want(err, kek.ErrMissing, "ObjectIsDeletedButRecoverable", "az keyvault key recover")
	b.server.Recover(vaultName, keyName)
	unwrap(t, k, w, "secret")
}

// TestVaultDeleted: the name of a deleted vault does not resolve. That says nothing
// about the key: the vault is unreachable until it is recovered.
func TestVaultDeleted(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.reconnect()
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.DeleteVault(vaultName)
	b.refused(k, w, kek.ErrUnreachable, "corp.localhost is not found in DNS", "az keyvault recover --name corp")
	if waits := b.waited(); len(waits) > 0 {
		t.Errorf("a name that is not there was asked for again after %v", waits)
	}
	b.server.RecoverVault(vaultName)
	unwrap(t, k, w, "secret")
}

// TestUnreachable: no answer is no verdict on the key.
func TestUnreachable(t *testing.T) {
	for name, test := range map[string]struct {
		begin, end func(b *bench)
		says       string
	}{
		"DNS":        {func(b *bench) { b.server.LoseDNS() }, func(b *bench) { b.server.RestoreDNS() }, "not found in DNS"},
		"down":       {func(b *bench) { b.server.Down() }, func(b *bench) { b.server.Up() }, "port 443"},
		"reset":      {func(b *bench) { b.server.Reset(100) }, nil, "reset"},
		"500":        {func(b *bench) { b.server.Inject(kvtest.Fault{Times: 100, Status: 500}) }, nil, "500"},
		"503":        {func(b *bench) { b.server.Inject(kvtest.Fault{Times: 100, Status: 503}) }, nil, "503"},
		"redirected": {func(b *bench) { b.tamper(redirect) }, func(b *bench) { b.tamper(nil) }, "302"},
		"no JSON":    {func(b *bench) { b.tamper(html(404)) }, func(b *bench) { b.tamper(nil) }, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kvtest.Options{})
			b.reconnect()
			k := b.made(kvtest.KeyOptions{})
			w := wrap(t, k, "secret")
			test.begin(b)
			b.refused(k, w, kek.ErrUnreachable, test.says)
			if test.end == nil {
				return
			}
			test.end(b)
			unwrap(t, k, w, "secret")
		})
	}
}

// TestResetOnce: one reset, or one 503, is not noticed.
func TestResetOnce(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.Reset(1, kvtest.OpUnwrap)
	unwrap(t, k, w, "secret")
	b.server.Inject(kvtest.Fault{Times: 2, Status: http.StatusServiceUnavailable, Ops: []kvtest.Op{kvtest.OpUnwrap}})
	unwrap(t, k, w, "secret")
}

// TestThrottled: Retry-After is honoured; a storm of 429 ends in unreachable, with
// longer and longer pauses; a vault that wants to be left alone for long is.
func TestThrottled(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.Throttle(2, 7*time.Second, kvtest.OpUnwrap)
	unwrap(t, k, w, "secret")
	if got := b.waited(); !slices.Equal(got, []time.Duration{7 * time.Second, 7 * time.Second}) {
		t.Errorf("after Retry-After: 7, waited %v", got)
	}

	b.server.ForgetCalls()
	before := len(b.waited())
	lift := b.server.Throttle(0, 0, kvtest.OpUnwrap)
	_, err := k.Unwrap(t.Context(), w)
	b.want(err, kek.ErrUnreachable, "429")
	waits := b.waited()[before:]
	if !slices.IsSorted(waits) || len(waits) != 5 || waits[0] < time.Second || waits[4] < 16*time.Second {
		t.Errorf("in a storm, waited %v", waits)
	}
	if n := b.server.Calls(kvtest.OpUnwrap); n != 6 {
		t.Errorf("in a storm, asked %d times", n)
	}
	lift()
	unwrap(t, k, w, "secret")

	b.server.ForgetCalls()
	b.server.Throttle(1, time.Hour, kvtest.OpUnwrap)
	_, err = k.Unwrap(t.Context(), w)
	b.want(err, kek.ErrUnreachable, "1h0m0s")
	if n := b.server.Calls(kvtest.OpUnwrap); n != 1 {
		t.Errorf("a vault that asked for an hour of silence was asked %d times", n)
	}
}

// TestFailedOver: a vault that has failed over unwraps and is read, and makes no
// keys. That is no loss of the key.
func TestFailedOver(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.FailOver(vaultName)
	unwrap(t, k, w, "secret")
	if err := b.open(t, b.uri(""))[0].Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	_, err := keyvault.Create(t.Context(), b.config(b.uri("")), 0)
	b.want(err, kek.ErrDenied, "failed over to another region")
	b.server.FailBack(vaultName)
	b.pass(time.Minute)
	if _, err := keyvault.Create(t.Context(), b.config(b.uri("")), 0); err != nil {
		t.Errorf("Create after failing back: %v", err)
	}
}

// TestPropagation: a permission that is given takes ten minutes to show, and needs
// no new key or token.
func TestPropagation(t *testing.T) {
	b := newBench(t, kvtest.Options{Propagation: kvtest.Propagation})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	b.server.Deny(kvtest.Scope{}, kvtest.OpUnwrap)
	b.pass(9 * time.Minute)
	unwrap(t, k, w, "secret")
	b.pass(2 * time.Minute)
	_, err := k.Unwrap(t.Context(), w)
	b.want(err, kek.ErrDenied, "up to 10 minutes")
	b.server.Allow(kvtest.Scope{}, kvtest.OpUnwrap)
	b.pass(11 * time.Minute)
	unwrap(t, k, w, "secret")
}

// TestInterrupted: a call that hangs ends with its context, and a cancelled one says
// nothing about the key.
func TestInterrupted(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	held := b.server.Hold(kvtest.OpUnwrap)
	defer held.Release()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-held.Arrived()
		cancel()
	}()
	_, err := k.Unwrap(ctx, w)
	b.want(err, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Unwrap = %v, want %v", err, context.Canceled)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = k.Unwrap(ctx, w)
	b.want(err, kek.ErrUnreachable)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Unwrap = %v, want %v", err, context.DeadlineExceeded)
	}
	held.Release()
	unwrap(t, k, w, "secret")
}

// TestLimit: a storm of calls stays at a fifth of what the service bears, counted
// apart for each size of key, and for all keys of a vault together.
func TestLimit(t *testing.T) {
	for _, test := range []struct {
		managed, hardware bool
		bits, perSecond   int
	}{
		{false, false, 3072, 20}, {false, true, 2048, 40}, {true, true, 3072, 72},
	} {
		b := newBench(t, kvtest.Options{ManagedHSM: test.managed})
		o := kvtest.KeyOptions{Bits: test.bits, Hardware: test.hardware}
		b.server.CreateKey(vaultName, "first", o)
		b.server.CreateKey(vaultName, "second", o)
		keys := []kek.Key{b.open(t, b.server.KeyURI(vaultName, "first", ""))[0], b.open(t, b.server.KeyURI(vaultName, "second", ""))[0]}
		calls := 4 * test.perSecond // a quarter of them at once, the rest in three seconds
		for i := range calls {
			if err := keys[i%2].Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var waited time.Duration
		for _, d := range b.waited() {
			waited += d
		}
		if took := b.Now().Sub(b.began); took < 2900*time.Millisecond || waited > 3100*time.Millisecond {
			t.Errorf("%+v: %d unwraps took %v and waited %v of the clock, want 3s", test, calls, took, waited)
		}
		b.server.CreateKey(vaultName, "other", kvtest.KeyOptions{Bits: 5120 - test.bits, Hardware: test.hardware})
		other := b.open(t, b.server.KeyURI(vaultName, "other", ""))[0]
		before := len(b.waited())
		if err := other.Check(t.Context()); err != nil || len(b.waited()) != before {
			t.Errorf("a key of another size had to wait %v (%v)", b.waited()[before:], err)
		}
	}
}

// TestWaitEnds: who waits for a vault that asked for patience can be cancelled.
func TestWaitEnds(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	cfg := b.config(b.uri(""))
	cfg.Wait = nil
	keys, err := keyvault.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := wrap(t, keys[0], "secret")
	b.server.Throttle(1, 50*time.Second, kvtest.OpUnwrap)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.tamper(func(resp *http.Response) {
		if resp.StatusCode == http.StatusTooManyRequests {
			time.AfterFunc(time.Millisecond, cancel)
		}
	})
	_, err = keys[0].Unwrap(ctx, w)
	b.want(err, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Unwrap = %v, want %v", err, context.Canceled)
	}

	// Who has less time than the vault asks for is told so at once.
	short, done := context.WithTimeout(t.Context(), 10*time.Second)
	defer done()
	_, err = keys[0].Unwrap(short, w)
	b.want(err, kek.ErrUnreachable, "to be left alone for")
	b.pass(time.Minute)
	b.tamper(nil)
	b.server.Throttle(1, 50*time.Second, kvtest.OpUnwrap)
	_, err = keys[0].Unwrap(short, w)
	b.want(err, kek.ErrUnreachable, "429")
	if short.Err() != nil {
		t.Error("it took all the time there was")
	}
}

// TestClosed: a closed key opens nothing.
func TestClosed(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := k.Unwrap(t.Context(), w)
	b.want(err, kek.ErrUnreachable, "is closed")
}

func redirect(resp *http.Response) {
	resp.StatusCode = http.StatusFound
	resp.Header.Set("Location", "https://elsewhere.localhost/")
}

// html makes an answer that a proxy would give.
func html(status int) func(*http.Response) {
	return func(resp *http.Response) {
		if resp.StatusCode == http.StatusUnauthorized {
			return
		}
		resp.StatusCode = status
		resp.Header.Del("Content-Type")
		replace(resp, func(string) string { return "<html><body>" + strings.Repeat("not here ", 500) + "</body></html>" })
	}
}
