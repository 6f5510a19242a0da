package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
)

// audited is a key whose every unwrap is recorded. Its canary is not: what comes of
// that is in the states.
type audited struct {
	kek.Key
	record func(ctx context.Context, e audit.Event) error
}

// ErrUnrecorded: what a key opened is not handed out, because it is not in the audit
// log.
var ErrUnrecorded = errors.New("it cannot be recorded, so it is not done")

// Unwrap records what the provider answered, then hands it out.
func (k *audited) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	secret, err := k.Key.Unwrap(ctx, w)
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	ref := k.Ref()
	e := audit.Event{Kind: audit.KeyUnwrapped, Key: ref.Name, Fingerprint: ref.Fingerprint.String(), Outcome: "opened"}
	if err != nil {
		e.Kind, e.Outcome, e.Says = audit.KeyRefused, "not opened", err.Error()
	}
	if at := PurposeOf(ctx); at != (Purpose{}) {
		e.Vault, e.Item, e.Job, e.By = at.Vault, at.Item, at.Job, at.By
	}
	if failed := k.record(context.WithoutCancel(ctx), e); failed != nil {
		clear(secret)
		return nil, errors.Join(err, fmt.Errorf("unwrap with %s: %w: %w", ref.Name, ErrUnrecorded, failed))
	}
	return secret, err
}

// Inspect asks the provider for facts; none if it knows none.
func (k *audited) Inspect(ctx context.Context) (kek.Facts, error) {
	if i, ok := k.Key.(kek.Inspector); ok {
		return i.Inspect(ctx)
	}
	return kek.Facts{}, nil
}

// Cautions are those of the key.
func (k *audited) Cautions() []string {
	if c, ok := k.Key.(kek.Cautioner); ok {
		return c.Cautions()
	}
	return nil
}

// Format and LogValue are those of the key's Ref: nothing below is printed.
func (k *audited) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.Ref().LogValue().String()) }

// LogValue is that of Ref.
func (k *audited) LogValue() slog.Value { return k.Ref().LogValue() }

// Purpose says what a key is asked for.
type Purpose struct {
	Vault, Item, By string
	Job             int64
}

type purposeKey struct{}

// WithPurpose notes in ctx what keys are asked for.
func WithPurpose(ctx context.Context, p Purpose) context.Context {
	return context.WithValue(ctx, purposeKey{}, p)
}

// PurposeOf returns what keys are asked for; zero if nobody has said.
func PurposeOf(ctx context.Context) Purpose {
	p, _ := ctx.Value(purposeKey{}).(Purpose)
	return p
}

// AskedBy is who asked for what ctx belongs to: a job, or a request.
func AskedBy(ctx context.Context) string {
	if who := PurposeOf(ctx).By; who != "" {
		return who
	}
	return control.PeerFrom(ctx).String()
}
