//go:build cgo && linux

package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/cofferbackup/coffer/kek"
)

// maxStuck is how many connections of a library may hang while they close before
// no more are made.
const maxStuck = 4

// library is a PKCS#11 library in this process. It is initialised by its first
// connection and finalised by the end of its last.
type library struct {
	path string
	// turn is held by whoever initialises, lists, logs in or closes: crypto11 is
	// safe for none of these at the same time. It is a channel because each of
	// them may hang.
	turn  chan struct{}
	stuck atomic.Int32 // connections that hang while they close

	mu     sync.Mutex
	tokens []*token
}

// endTurn closes the connections that nobody holds any more, because their last
// user left while the turn was taken, and gives up the turn.
func (l *library) endTurn() {
	l.mu.Lock()
	tokens := append([]*token(nil), l.tokens...)
	l.mu.Unlock()
	for _, t := range tokens {
		if !t.held() {
			_ = t.disconnect(0) // there is no one to tell
		}
	}
	<-l.turn
}

// tokenInfo is what a library says of a token.
type tokenInfo struct {
	slot          uint
	label, serial string
	model         string
	flags         uint
	maxSessions   uint // read-write; 0 or all ones: no limit known
	hardware      kek.Answer
}

// maxCalls is how many calls may be under way in the token. The soft token of
// openCryptoki 3.8 brings down its process as soon as there are two. The client of
// p11-kit 0.24, of several calls that are under way when its server dies, lets some
// hang for ever, and then cannot be initialised anew; its server works on one at a
// time anyway.
func (l *library) maxCalls(info tokenInfo) int {
	if info.model == "IBM SoftTok" || filepath.Base(l.path) == "p11-kit-client.so" {
		return 1
	}
	return maxCalls
}

// list returns the tokens that are present. The turn is held.
func (l *library) list() ([]tokenInfo, error) {
	if _, err := os.Stat(l.path); err != nil {
		return nil, fmt.Errorf("%w: the PKCS#11 library is not there: %w: install it or correct module-path", kek.ErrUnreachable, err)
	}
	lib := p11.New(l.path)
	if lib == nil {
		return nil, fmt.Errorf("%w: %s cannot be loaded as a PKCS#11 library: correct module-path", kek.ErrUnreachable, l.path)
	}
	defer lib.Destroy()
	switch err := lib.Initialize(); {
	case err == nil:
		defer lib.Finalize()
	case !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)): // a connection is open
		return nil, fmt.Errorf("%w: initialise %s: %w", kek.ErrUnreachable, l.path, err)
	}
	infos, err := tokensOf(lib)
	if err != nil {
		return nil, fmt.Errorf("%w: list the tokens of %s: %w", kek.ErrUnreachable, l.path, err)
	}
	return infos, nil
}

func tokensOf(lib *p11.Ctx) ([]tokenInfo, error) {
	slots, err := lib.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	var infos []tokenInfo
	for _, slot := range slots {
		info, err := lib.GetTokenInfo(slot)
		if err != nil {
			continue // another token's trouble
		}
		infos = append(infos, tokenInfo{
			slot: slot, label: info.Label, serial: info.SerialNumber, model: info.Model,
			flags: info.Flags, maxSessions: info.MaxRwSessionCount, hardware: hardware(lib, slot, info),
		})
	}
	return infos, nil
}

// choose returns the one token that u means.
func choose(u URI, infos []tokenInfo) (tokenInfo, error) {
	var chosen []tokenInfo
	var present []string
	for _, info := range infos {
		if info.label != "" {
			present = append(present, fmt.Sprintf("%q", info.label))
		}
		if (u.Token == "" || u.Token == info.label) && (u.Serial == "" || u.Serial == info.serial) && (u.Slot == nil || *u.Slot == info.slot) {
			chosen = append(chosen, info)
		}
	}
	switch len(chosen) {
	case 1:
		return chosen[0], nil
	case 0:
		if len(present) == 0 {
			present = []string{"none"}
		}
		return tokenInfo{}, fmt.Errorf("%w: the token is not present: put it back or correct the URI; present: %s", kek.ErrUnreachable, strings.Join(present, ", "))
	}
	return tokenInfo{}, fmt.Errorf("%w: %d tokens match %s: add serial= or slot-id=", kek.ErrUnsuitable, len(chosen), u)
}

// selector tells crypto11, which takes one attribute and the first that has it,
// which token to open.
func selector(cfg *crypto11.Config, u URI, chosen tokenInfo, infos []tokenInfo) {
	var labels, serials int
	for _, info := range infos {
		if info.label == chosen.label {
			labels++
		}
		if info.serial == chosen.serial {
			serials++
		}
	}
	switch {
	case u.Serial != "" && serials == 1:
		cfg.TokenSerial = chosen.serial
	case u.Token != "" && labels == 1:
		cfg.TokenLabel = chosen.label
	default:
		slot := int(chosen.slot)
		cfg.SlotNumber = &slot
	}
}

// conn is a connection to a token, logged in.
type conn struct {
	ctx     *crypto11.Context
	closing atomic.Bool
	cause   atomic.Pointer[fault] // why it is sick, nil while it is not known to be

	mu    sync.Mutex
	calls int           // under way
	idle  chan struct{} // closed when it is closing and no call is under way
}

var errClosing = errors.New("the connection is being closed")

// do has op ask the token, unless the connection is closing.
func (c *conn) do(op func(*conn) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return nil, c.faultOf(errClosing)
	}
	c.calls++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.calls--; c.calls == 0 && c.closing.Load() {
			close(c.idle)
		}
	}()
	return op(c)
}

// end lets no more calls begin.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing.Store(true)
	if c.calls == 0 {
		close(c.idle)
	}
}

// close closes the connection and returns when it is closed or wait has passed. Then
// it hangs: it closes when the calls in it come back, if they do. The turn is held.
// The end of the last connection finalises the library, which brings down the process
// if somebody lists or initialises at that moment: so a late end waits for a turn of
// its own.
func (c *conn) close(l *library, wait time.Duration) error {
	c.end()
	l.stuck.Add(1)
	hangs := fmt.Errorf("%w: a call in %s does not come back, so its connection stays open", kek.ErrUnreachable, l.path)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if wait == 0 || !happens(c.idle, timer.C) {
		go func() {
			<-c.idle
			l.turn <- struct{}{}
			defer func() { <-l.turn }()
			_ = c.finish(l) // there is no one to tell
		}()
		return hangs
	}
	done := make(chan error, 1)
	go func() { done <- c.finish(l) }()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return hangs
	}
}

// happens tells whether an event comes before its time is over.
func happens(event <-chan struct{}, over <-chan time.Time) bool {
	select {
	case <-event:
		return true
	case <-over:
		return false
	}
}

// finish closes a connection in which no call is under way.
func (c *conn) finish(l *library) (err error) {
	defer l.stuck.Add(-1)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("close connection: %v", r)
		}
	}()
	return c.ctx.Close()
}

// configure makes a connection. crypto11 panics where a token allows one session
// only.
func configure(cfg *crypto11.Config) (c *conn, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("connect: %v", r)
		}
	}()
	ctx, err := crypto11.Configure(cfg)
	if err != nil {
		return nil, err
	}
	return &conn{ctx: ctx, idle: make(chan struct{})}, nil
}
