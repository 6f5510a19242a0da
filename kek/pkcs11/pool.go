//go:build cgo && linux

package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
)

// Pool opens keys in tokens. A process has one: a second would not know which PINs
// the first has tried. It is safe for concurrent use.
type Pool struct {
	cfg Config

	mu        sync.Mutex
	libraries map[string]*library
}

// NewPool returns a Pool with nothing open.
func NewPool(cfg Config) *Pool {
	if cfg.CloseWait == 0 {
		cfg.CloseWait = 5 * time.Second
	}
	if cfg.CallWait == 0 {
		cfg.CallWait = time.Minute
	}
	return &Pool{cfg: cfg, libraries: make(map[string]*library)}
}

// Versions opens every version of the key that uri names, the newest first, or the one
// that its id pins. name is the key's name in the config. It tries that each opens what
// it wraps, and with which hash. An older one that is not suitable any more is left out,
// with a line in the log.
func (p *Pool) Versions(ctx context.Context, name, uri string) ([]kek.Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	t, err := p.hold(ctx, u)
	if err != nil {
		return nil, err
	}
	var keys []*key
	_, err = t.use(ctx, "open "+u.String(), func(c *conn) (_ []byte, err error) {
		keys, err = t.find(c, u, name)
		return nil, err
	})
	if err != nil {
		return nil, errors.Join(err, t.release(p.patience(ctx)))
	}
	out := make([]kek.Key, len(keys))
	for i, k := range keys {
		if i > 0 {
			t.hold()
		}
		out[i] = k
	}
	return out, nil
}

// Close closes what keys have left open. Their next call says so.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, l := range p.libraries {
		l.mu.Lock()
		tokens := append([]*token(nil), l.tokens...)
		l.mu.Unlock()
		for _, t := range tokens {
			t.mu.Lock()
			t.users = 0
			t.mu.Unlock()
			errs = append(errs, t.letGo(p.cfg.CloseWait))
		}
	}
	return errors.Join(errs...)
}

// patience is how long a call that has failed waits for its connection to close.
func (p *Pool) patience(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	return p.cfg.CloseWait
}

// hold returns the token of u, to be released by the caller.
func (p *Pool) hold(ctx context.Context, u URI) (*token, error) {
	l := p.library(u.Module)
	infos, err := l.present(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(u, infos)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.known(chosen, infos)
	if t == nil {
		t = &token{lib: l, cfg: p.cfg, calls: calls.New(l.maxCalls(chosen))}
		l.tokens = append(l.tokens, t)
	}
	return t, t.join(u, chosen, infos)
}

func (p *Pool) library(path string) *library {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.libraries[path]
	if l == nil {
		l = &library{path: path, turn: make(chan struct{}, 1)}
		p.libraries[path] = l
	}
	return l
}

// present lists the tokens, and returns when ctx is done, whatever the library
// does.
func (l *library) present(ctx context.Context) ([]tokenInfo, error) {
	doing := "list the tokens of " + l.path
	if err := kek.Interrupted(ctx, doing); err != nil {
		return nil, err
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, doing)
	}
	type result struct {
		infos []tokenInfo
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer l.endTurn()
		infos, err := l.list()
		done <- result{infos, err}
	}()
	select {
	case r := <-done:
		return r.infos, r.err
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, doing)
	}
}

// known returns the supervisor of a token, whichever way a URI names it. Only where
// two tokens share label and serial number does the slot tell them apart.
func (l *library) known(chosen tokenInfo, infos []tokenInfo) *token {
	twins := 0
	for _, info := range infos {
		if info.label == chosen.label && info.serial == chosen.serial {
			twins++
		}
	}
	for _, t := range l.tokens {
		t.mu.Lock()
		same := t.info.label == chosen.label && t.info.serial == chosen.serial && (twins == 1 || t.info.slot == chosen.slot)
		t.mu.Unlock()
		if same {
			return t
		}
	}
	return nil
}

// join counts one more key. While the token is open its PIN is known to be right,
// and another one is not: the library would not even look at it.
func (t *token) join(u URI, chosen tokenInfo, infos []tokenInfo) error {
	name := t.String()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info = chosen
	if t.users > 0 && u.PIN != t.pin {
		pin, err := u.PIN.Read()
		if err != nil {
			return fmt.Errorf("%w: the PIN of %s cannot be read: %w", kek.ErrDenied, name, err)
		}
		defer clear(pin)
		if t.accepted == nil || *t.accepted != sha256.Sum256(pin) {
			return fmt.Errorf("%w: %s is open with the PIN in %s and the one in %s is another; it was not tried: use one PIN for all keys of a token", kek.ErrDenied, name, t.pin, u.PIN)
		}
	}
	if t.users == 0 {
		t.pin, t.accepted, t.which = u.PIN, nil, crypto11.Config{}
		selector(&t.which, u, chosen, infos)
	}
	t.users++
	return nil
}

// hold counts one more key of a token that is held.
func (t *token) hold() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
}

// release ends what join and hold began. The last one closes the connection, for
// which it waits so long.
func (t *token) release(wait time.Duration) error {
	t.mu.Lock()
	if t.users > 0 {
		t.users--
	}
	t.mu.Unlock()
	return t.letGo(wait)
}

// letGo closes the connection if nobody holds it any more. If the turn is taken for
// too long, the end of that turn does it.
func (t *token) letGo(wait time.Duration) error {
	if t.held() {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case t.lib.turn <- struct{}{}:
		defer func() { <-t.lib.turn }()
		if t.held() { // again, meanwhile
			return nil
		}
		return t.disconnect(wait)
	case <-timer.C:
		return fmt.Errorf("%w: a call in %s does not come back, so %s stays open", kek.ErrUnreachable, t.lib.path, t)
	}
}

func (t *token) held() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.users > 0
}
