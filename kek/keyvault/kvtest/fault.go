package kvtest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Scope is whom or what a permission is about. An empty field is all.
type Scope struct {
	Vault  string
	Key    string
	Client string
}

func (s Scope) lower() Scope {
	return Scope{Vault: strings.ToLower(s.Vault), Key: strings.ToLower(s.Key), Client: strings.ToLower(s.Client)}
}

// grant is a permission that somebody lacks.
type grant struct {
	Scope
	op Op // "": every operation
}

// Deny takes the permission for these operations, for all if none are named: they
// are answered with 403 ForbiddenByRbac.
func (s *Server) Deny(scope Scope, ops ...Op) { s.permit(scope, ops, true) }

// Allow lifts what Deny has set for the same scope: for these operations, or all
// that was denied if none are named.
func (s *Server) Allow(scope Scope, ops ...Op) { s.permit(scope, ops, false) }

func (s *Server) permit(scope Scope, ops []Op, denied bool) {
	scope = scope.lower()
	ops = slices.Clone(ops)
	s.mu.Lock()
	s.settle()
	s.later(func() {
		switch {
		case len(ops) > 0:
			for _, op := range ops {
				s.setDenied(grant{scope, op}, denied)
			}
		case denied:
			s.denied[grant{scope, ""}] = true
		default:
			for g := range s.denied {
				if g.Scope == scope {
					delete(s.denied, g)
				}
			}
		}
	})
	s.mu.Unlock()
	s.changed()
}

func (s *Server) setDenied(g grant, denied bool) {
	if denied {
		s.denied[g] = true
	} else {
		delete(s.denied, g)
	}
}

// forbidden tells whether a client lacks a permission. s.mu is held.
func (s *Server) forbidden(asked Scope, op Op) bool {
	asked = asked.lower()
	matches := func(set, is string) bool { return set == "" || set == is }
	for g := range s.denied {
		if matches(string(g.op), string(op)) && matches(g.Vault, asked.Vault) && matches(g.Key, asked.Key) && matches(g.Client, asked.Client) {
			return true
		}
	}
	return false
}

// CloseFirewall lets nobody into a vault: 403 ForbiddenByFirewall.
func (s *Server) CloseFirewall(name string) { s.set(name, func(v *vault) { v.firewall = true }) }

// OpenFirewall undoes CloseFirewall.
func (s *Server) OpenFirewall(name string) { s.set(name, func(v *vault) { v.firewall = false }) }

// FailOver moves a vault to its second region, where it is read-only: what would
// change it is answered with 403.
func (s *Server) FailOver(name string) { s.set(name, func(v *vault) { v.readOnly = true }) }

// FailBack undoes FailOver.
func (s *Server) FailBack(name string) { s.set(name, func(v *vault) { v.readOnly = false }) }

// DeleteVault deletes a vault with everything in it. Its name does not resolve any
// more.
func (s *Server) DeleteVault(name string) {
	s.set(name, func(v *vault) { v.gone = true })
	s.conns.endIdle()
}

// RecoverVault undoes DeleteVault: all keys are there again.
func (s *Server) RecoverVault(name string) { s.set(name, func(v *vault) { v.gone = false }) }

func (s *Server) set(name string, change func(*vault)) {
	s.mu.Lock()
	v, err := s.vault(name)
	if err == nil {
		change(v)
	}
	s.mu.Unlock()
	s.must(err)
	s.changed()
}

// Fault is what happens to a request instead of an answer, after its token was
// accepted.
type Fault struct {
	Ops   []Op // that it happens to; none: all of vaults
	Vault string
	Key   string
	Times int // it happens so often; 0: until it is lifted

	Reset      bool          // the connection is reset
	Status     int           // otherwise: of the answer
	Code       string        // of the error
	RetryAfter time.Duration // says the answer, if it is not 0
	hold       *Held
}

// fault is a Fault in force.
type fault struct {
	Fault
	left int
}

// Inject makes f happen from now on. The function that it returns lifts it. Where
// several fit, the one injected first happens.
func (s *Server) Inject(f Fault) (lift func()) {
	in := &fault{Fault: f, left: f.Times}
	s.mu.Lock()
	s.faults = append(s.faults, in)
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(have *fault) bool { return have == in })
	}
}

// Throttle answers the next n of these operations with 429 and a Retry-After.
func (s *Server) Throttle(n int, after time.Duration, ops ...Op) (lift func()) {
	return s.Inject(Fault{Ops: ops, Times: n, Status: http.StatusTooManyRequests, Code: "Throttled", RetryAfter: after})
}

// Reset resets the connection of the next n of these operations.
func (s *Server) Reset(n int, ops ...Op) (lift func()) {
	return s.Inject(Fault{Ops: ops, Times: n, Reset: true})
}

// Held keeps requests waiting.
type Held struct {
	arrived chan struct{}
	open    chan struct{}
	once    sync.Once
	lift    func()
}

// Hold keeps these operations waiting, all of vaults if none are named, until
// Release.
func (s *Server) Hold(ops ...Op) *Held {
	h := &Held{arrived: make(chan struct{}, maxRequests), open: make(chan struct{})}
	h.lift = s.Inject(Fault{Ops: ops, hold: h})
	return h
}

// Arrived receives once for each request that waits or has waited.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Release lets the requests go on, and later ones pass.
func (h *Held) Release() {
	h.once.Do(func() {
		h.lift()
		close(h.open)
	})
}

// wait returns when the request may go on: false if its client has gone.
func (h *Held) wait(ctx context.Context) bool {
	select {
	case h.arrived <- struct{}{}:
	default: // nobody counts that many
	}
	select {
	case <-h.open:
		return true
	case <-ctx.Done():
		return false
	}
}

// happens returns the fault that happens to a request, and counts it.
func (s *Server) happens(op Op, vault, key string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !f.fits(op, vault, key) {
			continue
		}
		if f.Times > 0 {
			if f.left--; f.left == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return f
	}
	return nil
}

func (f *fault) fits(op Op, vault, key string) bool {
	ops := f.Ops
	if len(ops) == 0 {
		ops = Ops()
	}
	return slices.Contains(ops, op) &&
		(f.Vault == "" || strings.EqualFold(f.Vault, vault)) && (f.Key == "" || strings.EqualFold(f.Key, key))
}
