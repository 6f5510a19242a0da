package vault

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/agent/control"
)

// TakeAway has a vault do without a key from the next look at its keys on (Reopen), until
// GiveBack. There is one drill of a vault at a time.
func (s *Set) TakeAway(vault, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.without[vault] != "" {
		return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("another drill of vault %s is running", vault), Next: "wait for its end: coffer job list"}
	}
	s.without[vault] = key
	return nil
}

// GiveBack lets a vault have all its keys again.
func (s *Set) GiveBack(ctx context.Context, vault string) {
	s.mu.Lock()
	delete(s.without, vault)
	s.mu.Unlock()
	if err := s.Reopen(ctx, vault); err != nil {
		s.cfg.Log.Warn("vault not given all keys after a drill", "vault", vault, "err", err)
	}
}

// Reopen has a vault use the keys that it may use now, and forget what it opened
// with others.
func (s *Set) Reopen(ctx context.Context, vault string) error {
	if err := s.Opening(vault).Enter(ctx); err != nil {
		return err
	}
	defer s.Opening(vault).Leave()
	if v := s.Opened(vault); v != nil {
		v.Catalog.Forget()
		s.Rering(ctx, v)
	}
	return nil
}

// Drilling tells whether a vault does without a key now.
func (s *Set) Drilling(vault string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.without[vault] != ""
}
