package keyvault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
)

const (
	// apiVersion is the first that says what an HSM key's hardware is. Newer ones add
	// nothing that is used here, and sovereign clouds get them late.
	apiVersion = "7.5"
	// maxCalls is how many calls to a vault may be under way.
	maxCalls = 16
	// tryTimeout is how long one try may take: a server may stop in the middle of an
	// answer. It is longer than all limits on parts of it.
	tryTimeout = time.Minute
	// maxPatience is the longest silence that a call bears.
	maxPatience = time.Minute
	// How often a call is made that gets no answer, and one that is throttled: the
	// service asks for 1, 2, 4, 8 and 16 seconds in between.
	maxTries     = 3
	maxThrottled = 6
)

// vault is a Key Vault or a Managed HSM, asked by one identity.
type vault struct {
	host  string
	hsm   bool
	id    *identity
	site  *site
	keys  *azkeys.Client
	calls *calls.Places
	own   *Pool // to be closed with the key; nil if it belongs to others
	log   *slog.Logger
	now   func() time.Time
	wait  func(context.Context, time.Duration) error
}

func newVault(cfg Config, a address, id *identity, s *site) (*vault, error) {
	client, err := azkeys.NewClient(a.base(), id, &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
		APIVersion: apiVersion,
		Cloud:      cloud.Configuration{ActiveDirectoryAuthorityHost: a.authority},
		Retry:      policy.RetryOptions{MaxRetries: -1}, // see call
		Telemetry:  policy.TelemetryOptions{ApplicationID: applicationID},
		Transport:  id.client,
	}})
	if err != nil {
		return nil, fmt.Errorf("make client of %s: %w", a.host, err)
	}
	return &vault{
		host: a.host, hsm: a.hsm, id: id, site: s, keys: client, calls: calls.New(maxCalls),
		log: cfg.Log, now: cfg.Now, wait: cfg.Wait,
	}, nil
}

// request is a call to the vault.
type request struct {
	verb string
	of   address
	cost cost
	once bool // it makes something: it is not made again when its answer is lost
	do   func(ctx context.Context) ([]byte, error)
}

func (r request) doing() string {
	if r.of.version != "" {
		return r.verb + " " + r.of.versioned()
	}
	return r.verb + " " + r.of.String()
}

// call makes a request, and again while the vault or the way to it asks for
// patience. It returns a *fault, or kek.Interrupted.
func (v *vault) call(ctx context.Context, r request) ([]byte, error) {
	for try := 1; ; try++ {
		if err := v.pause(ctx, r, v.site.limiter.delay(r.cost), nil); err != nil {
			return nil, err
		}
		secret, err := v.calls.Do(ctx, r.doing(), func() ([]byte, error) { return v.once(ctx, r) })
		var f *fault
		if err == nil || !errors.As(err, &f) {
			return secret, err
		}
		throttled := f.status == http.StatusTooManyRequests
		delay := backoff(try, throttled)
		if f.after > 0 {
			delay = f.after
		}
		if throttled {
			v.site.limiter.pause(min(delay, maxPatience))
		}
		if !f.again || delay > maxPatience || (!throttled && (r.once || try >= maxTries)) || try >= maxThrottled {
			return nil, err
		}
		v.log.Debug("key vault does not answer, trying again", "vault", v.host, "try", try, "wait", delay, "err", err)
		if err := v.pause(ctx, r, delay, err); err != nil {
			return nil, err
		}
	}
}

// pause waits for d before r is made. What would take longer than ctx lasts is not
// begun: the error is then because, or that the vault is to be left alone.
func (v *vault) pause(ctx context.Context, r request, d time.Duration, because error) error {
	if err := kek.Interrupted(ctx, r.doing()); err != nil || d <= 0 {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		if because != nil {
			return because
		}
		return &fault{class: kek.ErrUnreachable, doing: r.doing(), next: "try again later",
			says: fmt.Sprintf("%s is to be left alone for %v: it answers only so many calls", v.host, d.Round(time.Second))}
	}
	err := v.wait(ctx, d)
	if err == nil {
		return nil
	}
	if interrupted := kek.Interrupted(ctx, r.doing()); interrupted != nil {
		return interrupted
	}
	return fmt.Errorf("%w: %s: wait: %w", kek.ErrUnreachable, r.doing(), err)
}

// once makes a request one time. The client panics on some challenges that are none.
func (v *vault) once(ctx context.Context, r request) (secret []byte, err error) {
	watched, seen := watch(ctx)
	watched, cancel := context.WithTimeout(watched, tryTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			secret, err = nil, v.explain(ctx, r.doing(), r.of, fmt.Errorf("the client gave up: %v", p), seen.last())
		}
	}()
	secret, err = r.do(watched)
	var odd *oddError
	switch {
	case err == nil:
		return secret, nil
	case errors.As(err, &odd):
		return nil, &fault{class: kek.ErrUnsuitable, doing: r.doing(), says: v.host + ": " + odd.says, next: odd.next}
	}
	return nil, v.explain(ctx, r.doing(), r.of, err, seen.last())
}

// oddError is an answer that is well formed and must not be acted on.
type oddError struct {
	says, next string
}

func (e *oddError) Error() string { return e.says }

// backoff is how long to wait after so many tries: doubled each time, and not the
// same for everyone.
func backoff(try int, throttled bool) time.Duration {
	first := 500 * time.Millisecond
	if throttled {
		first = time.Second
	}
	d := first << (try - 1)
	return d + rand.N(d/4)
}
