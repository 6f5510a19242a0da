//go:build cgo && linux

package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
	"github.com/cofferbackup/coffer/kek/secret"
)

const (
	maxCalls    = 16 // at a time, for one token
	maxTries    = 8  // of a call, while others close its connections
	sessionWait = 30 * time.Second
	minBackoff  = 500 * time.Millisecond
	maxBackoff  = 30 * time.Second
)

// token supervises the one connection that this process has with a token.
type token struct {
	lib   *library
	cfg   Config
	calls *calls.Places

	mu       sync.Mutex
	info     tokenInfo
	which    crypto11.Config // selects the token
	pin      secret.Source
	users    int   // keys that hold the token
	conn     *conn // nil: none
	accepted *pinSum
	refused  *refusal
	retryAt  time.Time     // no attempt before
	backoff  time.Duration // until the attempt after that; 0: the last call was well
	lost     error         // why there is no connection
}

// pinSum tells whether a PIN is the same as one before.
type pinSum [sha256.Size]byte

// refusal is a PIN that the token has refused.
type refusal struct {
	sum pinSum
	err error
}

func (t *token) String() string { return fmt.Sprintf("token %q", t.name()) }

func (t *token) name() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.info.label != "" {
		return t.info.label
	}
	return t.info.serial
}

// use has op ask the token something, and once more on a new connection if the one
// that it had is sick. That another call closed it meanwhile does not count.
func (t *token) use(ctx context.Context, doing string, op func(*conn) ([]byte, error)) ([]byte, error) {
	doing = fmt.Sprintf("%s: %s", t, doing)
	c, err := t.connection(ctx, doing, nil)
	if err != nil {
		return nil, err
	}
	for tries, sickened := 1, 0; ; tries++ {
		out, err := t.calls.Do(ctx, doing, func() ([]byte, error) { return c.do(op) })
		var f *fault
		isFault := errors.As(err, &f)
		if err == nil || (isFault && f.class != sick && f.class != busy) {
			t.well(ctx)
		}
		if !isFault || f.class != sick {
			return out, t.explain(err)
		}
		if !c.closing.Load() {
			sickened++
		}
		if sickened == 2 || tries == maxTries {
			return nil, t.explain(err)
		}
		c.cause.CompareAndSwap(nil, f)
		if c, err = t.connection(ctx, doing, c); err != nil {
			return nil, err
		}
	}
}

// well ends backing off.
func (t *token) well(ctx context.Context) {
	t.mu.Lock()
	back := t.lost != nil
	t.retryAt, t.backoff, t.lost = time.Time{}, 0, nil
	t.mu.Unlock()
	if back {
		t.cfg.Log.InfoContext(ctx, "token is back", slog.String("token", t.name()))
	}
}

// connection returns a connection that is not sick, which is one that was found
// so. It returns when ctx is done, whatever the library does.
func (t *token) connection(ctx context.Context, doing string, sick *conn) (*conn, error) {
	if c, _ := t.state(); c != nil && c != sick {
		return c, nil
	}
	select {
	case t.lib.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, doing+": wait for "+t.lib.path)
	}
	type result struct {
		conn *conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer t.lib.endTurn()
		c, err := t.connect(sick)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, doing+": connect")
	}
}

// connect replaces the sick connection, unless another call has done so. The turn
// is held.
func (t *token) connect(sick *conn) (*conn, error) {
	c, lost := t.state()
	if c != nil && c != sick {
		return c, nil
	}
	if err := t.mayConnect(); err != nil {
		return nil, err
	}
	// A connection that is already gone was closed for the sake of another token
	// of the library: that one is at work on it.
	replace := c != nil || (sick == nil && lost != nil)
	if c != nil {
		lost = t.explain(c.cause.Load())
		t.cfg.Log.Warn("token lost", slog.String("token", t.name()), slog.Any("error", lost))
	}
	if replace {
		t.lib.closeAll(t.cfg)
	}
	c, err := t.login()
	t.mu.Lock()
	defer t.mu.Unlock()
	if replace || errors.Is(err, kek.ErrUnreachable) {
		t.backoff = min(max(2*t.backoff, minBackoff), maxBackoff)
		t.retryAt = t.cfg.Now().Add(t.backoff)
	}
	t.conn, t.lost = c, lost
	if err != nil {
		t.lost = err
	}
	return c, err
}

// state returns the connection, if there is one, and what was wrong with the last.
func (t *token) state() (*conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn, t.lost
}

func (t *token) mayConnect() error {
	name := t.String()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		return fmt.Errorf("%w: %s is closed", kek.ErrUnreachable, name)
	}
	if wait := t.retryAt.Sub(t.cfg.Now()); wait > 0 && errors.Is(t.lost, kek.ErrUnreachable) {
		return fmt.Errorf("%w; tried again in %v", t.lost, wait.Round(100*time.Millisecond))
	}
	if n := t.lib.stuck.Load(); n >= maxStuck {
		return fmt.Errorf("%w: %d connections hang in %s: restart the service when the token answers again", kek.ErrUnreachable, n, t.lib.path)
	}
	return nil
}

// closeAll closes every connection of the library, for only then is it finalised,
// and only that cures a lost one. The turn is held.
func (l *library) closeAll(cfg Config) {
	l.mu.Lock()
	tokens := append([]*token(nil), l.tokens...)
	l.mu.Unlock()
	for _, t := range tokens {
		if err := t.disconnect(cfg.CloseWait); err != nil {
			cfg.Log.Warn("token does not let go", slog.String("token", t.name()), slog.Any("error", err))
		}
	}
}

// disconnect closes the connection, if there is one. The turn is held.
func (t *token) disconnect(wait time.Duration) error {
	t.mu.Lock()
	c := t.conn
	t.conn = nil
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.close(t.lib, wait)
}

// login makes a connection with the PIN as it is now, unless the token has refused
// that one before. The turn is held.
func (t *token) login() (*conn, error) {
	t.mu.Lock()
	cfg, source, info, known := t.which, t.pin, t.info, t.accepted != nil
	t.mu.Unlock()
	cfg.Path = t.lib.path
	cfg.MaxSessions = maxCalls + 1
	cfg.PoolWaitTimeout = sessionWait
	var sum pinSum
	if source.IsZero() {
		cfg.LoginNotSupported = true
	} else {
		pin, err := source.Read()
		if err != nil {
			return nil, fmt.Errorf("%w: the PIN of %s cannot be read: %w", kek.ErrDenied, t, err)
		}
		defer clear(pin)
		sum = sha256.Sum256(pin)
		if err := t.refusedBefore(sum); err != nil {
			return nil, err
		}
		cfg.Pin = string(pin)
	}
	if err := mayLogin(t, info, source, known); err != nil {
		return nil, err
	}
	c, err := configure(&cfg)
	if err != nil {
		return nil, t.refuse(sum, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accepted, t.refused = &sum, nil
	return c, nil
}

// mayLogin looks at the flags of the token before a PIN is risked on it.
func mayLogin(t *token, info tokenInfo, source secret.Source, known bool) error {
	switch {
	case info.maxSessions == 1:
		return fmt.Errorf("%w: %s allows a single session: allow at least 2", kek.ErrUnsuitable, t)
	case known:
		return nil
	case source.IsZero() && info.flags&p11.CKF_LOGIN_REQUIRED != 0:
		return fmt.Errorf("%w: %s wants a PIN: add pin-source=file:/path to the key's URI", kek.ErrDenied, t)
	case info.flags&p11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: the PIN of %s is locked: unlock it with the security officer's PIN", kek.ErrDenied, t)
	case info.flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("%w: one more wrong PIN locks %s, so none is tried: log in once with the token's own tool, then start again", kek.ErrDenied, t)
	}
	return nil
}

func (t *token) refusedBefore(sum pinSum) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused == nil || t.refused.sum != sum {
		return nil
	}
	return t.refused.err
}

// refuse says why there is no connection, and remembers a PIN that is wrong.
func (t *token) refuse(sum pinSum, err error) error {
	name, source := t.String(), t.pinSource()
	code, ok := codeOf(err)
	if !ok || classify(code) != refused {
		return fmt.Errorf("%w: %s: %w", kek.ErrUnreachable, name, err)
	}
	reason := "refuses the PIN from"
	next := "correct it there"
	if code == ckrPinLocked {
		reason, next = "is locked and accepts no PIN, also not the one from", "unlock it with the security officer's PIN, then restart the service"
	}
	again := fmt.Errorf("%w: %s %s %s: %w; it is not tried again, so that the token is not locked: %s", kek.ErrDenied, name, reason, source, err, next)
	t.mu.Lock()
	t.refused = &refusal{sum: sum, err: again}
	t.mu.Unlock()
	t.cfg.Log.Error("token refuses the pin", slog.String("token", t.name()), slog.String("pin-source", source.String()), slog.Any("error", err))
	return again
}

func (t *token) pinSource() secret.Source {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pin
}
