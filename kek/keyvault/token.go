package keyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/cofferbackup/coffer/kek"
)

// identity is a credential at work: it gets tokens and keeps them while they last.
// All vaults that are asked with one credential share one.
type identity struct {
	credential Credential
	authority  string
	now        func() time.Time
	client     *http.Client // for the vault and the token endpoint
	local      *http.Client // for the agent of Azure Arc
	skew       atomic.Int64 // how far the clock of the last server was ahead, in nanoseconds

	turn chan struct{} // held by the one who asks for a token

	mu      sync.Mutex
	held    map[string]heldToken // by scope
	expires time.Time            // of the certificate that was last read
}

type heldToken struct {
	token  azcore.AccessToken
	renew  time.Time // ask for the next from then on
	expire time.Time
}

func newIdentity(cfg Config, authority string) (*identity, error) {
	id := &identity{
		credential: cfg.Credential, authority: authority, now: cfg.Now,
		turn: make(chan struct{}, 1), held: make(map[string]heldToken),
	}
	remote, local := cfg.Transport, cfg.Transport
	if cfg.Transport == nil {
		var err error
		if remote, err = newTransport(cfg.Credential); err != nil {
			return nil, err
		}
		local = newLocalTransport()
	}
	id.client, id.local = id.newClient(remote), id.newClient(local)
	return id, nil
}

// GetToken returns a token for what want says, from memory if there is one. It is
// what the client of Key Vault calls when the vault has said what it wants.
func (i *identity) GetToken(ctx context.Context, want policy.TokenRequestOptions) (azcore.AccessToken, error) {
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return azcore.AccessToken{}, ctx.Err()
	}
	scope := strings.Join(want.Scopes, " ")
	i.mu.Lock()
	held, ok := i.held[scope]
	i.mu.Unlock()
	if ok && want.Claims == "" && i.now().Before(held.renew) {
		return held.token, nil
	}
	token, err := i.ask(ctx, want)
	if err != nil {
		if f := (*fault)(nil); ok && errors.As(err, &f) && f.class == kek.ErrUnreachable && i.now().Before(held.expire) {
			return held.token, nil // it lasts: the next call asks again
		}
		return azcore.AccessToken{}, err
	}
	// MSAL counts from the clock of the system; here a span is all that matters.
	lasts := max(time.Until(token.ExpiresOn), 0)
	token.RefreshOn = time.Now().Add(lasts * 2 / 3)
	now := i.now()
	i.mu.Lock()
	i.held[scope] = heldToken{token: token, renew: now.Add(lasts * 2 / 3), expire: now.Add(lasts)}
	i.mu.Unlock()
	return token, nil
}

// forget drops a token that was refused, so that the next call asks for another.
func (i *identity) forget(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for scope, held := range i.held {
		if held.token.Token == token {
			delete(i.held, scope)
		}
	}
}

func (i *identity) forgetAll() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.held)
}

func (i *identity) noteExpiry(at time.Time) {
	i.mu.Lock()
	i.expires = at
	i.mu.Unlock()
}

// expiry is when the certificate expires that was last read. It is zero before the
// first token, and without a certificate.
func (i *identity) expiry() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.expires
}

// String keeps tokens out of whatever is printed.
func (i *identity) String() string { return i.credential.String() }

// Format writes String, whatever the verb.
func (i *identity) Format(s fmt.State, _ rune) { fmt.Fprint(s, i.String()) }

func (i *identity) ask(ctx context.Context, want policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if strings.Contains(i.credential.Tenant, ".") {
		want.TenantID = "" // a domain's name: whether it is the vault's tenant is for the endpoint to say
	}
	if ours := i.credential.Tenant; ours != "" && want.TenantID != "" && !strings.EqualFold(ours, want.TenantID) {
		return azcore.AccessToken{}, &fault{class: kek.ErrDenied, says: fmt.Sprintf("the vault belongs to tenant %q and the credential to %s", want.TenantID, ours),
			next: "set credential.tenant and credential.client to an application of that tenant"}
	}
	source, err := i.source()
	if err != nil {
		if f := (*fault)(nil); errors.As(err, &f) {
			return azcore.AccessToken{}, err
		}
		return azcore.AccessToken{}, &fault{class: kek.ErrUnsuitable, says: "the credential cannot be used: " + clean(err.Error()), next: "correct the key's credential in the config"}
	}
	ctx, seen := watch(ctx)
	token, err := source.GetToken(ctx, want)
	if err != nil {
		return azcore.AccessToken{}, i.explain(ctx, err, seen.last())
	}
	if token.Token == "" {
		return azcore.AccessToken{}, &fault{class: kek.ErrUnreachable, says: "the token endpoint answers without a token"}
	}
	return token, nil
}

// refusal is the body of an error of a token endpoint (RFC 6749, 5.2). What it has
// besides is prose, which is not repeated: nobody knows what of the request is in it.
type refusal struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
}

// explain says what the failure of a token request means.
func (i *identity) explain(ctx context.Context, err error, last exchange) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if last.err != nil {
		f := netFault(last.err, last.host, i.credential.Proxy)
		f.says = "no token: " + f.says
		return f
	}
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || failed.RawResponse == nil {
		return i.oddAnswer(last)
	}
	response := failed.RawResponse
	var r refusal
	if body, err := runtime.Payload(response); err == nil {
		// What is not JSON has no code, and the status decides.
		_ = json.Unmarshal(body, &r)
	}
	if f := statusFault(response); f != nil {
		f.status = 0 // it is not the vault's
		f.says = "no token: " + last.host + " " + f.says
		return f
	}
	code := r.code()
	if slices.Contains([]int{50196, 90006, 90024, 90033, 90055, 90100}, code) || r.Error == "temporarily_unavailable" || r.Error == "server_error" {
		return &fault{class: kek.ErrUnreachable, again: true, says: fmt.Sprintf("no token: %s cannot say just now (%s)", last.host, r.name(code))}
	}
	if r.Error == "" && i.credential.Kind != Arc {
		return i.oddAnswer(last)
	}
	f := i.refused(code)
	f.says = fmt.Sprintf("%s does not let %s in (%s): %s", last.host, i.credential, r.name(code), f.says)
	i.blameClock(f)
	return f
}

// oddAnswer is for what is not an answer of a token endpoint at all.
func (i *identity) oddAnswer(last exchange) error {
	if i.credential.Kind == Arc && last.status == http.StatusUnauthorized {
		return &fault{class: kek.ErrDenied, says: "the key of the Azure Arc agent cannot be read",
			next: "add the user of the service to the group himds and restart the service"}
	}
	return &fault{class: kek.ErrUnreachable, says: fmt.Sprintf("no token: %s answers %d and not as a token endpoint does", last.host, last.status),
		next: "check credential.authority, and whether a proxy answers in its place"}
}

// code returns the number that Entra names the reason by, or 0.
func (r refusal) code() int {
	if len(r.Codes) > 0 {
		return r.Codes[0]
	}
	var code int
	if _, err := fmt.Sscanf(r.Description, "AADSTS%d", &code); err != nil {
		return 0
	}
	return code
}

func (r refusal) name(code int) string {
	name := r.Error
	if !matches(`^[a-z_]{1,40}$`, name) {
		name = "no error code"
	}
	if code > 0 {
		name += fmt.Sprintf(", AADSTS%d", code)
	}
	return name
}

// refused says what a number of Entra means here, and what to do.
func (i *identity) refused(code int) *fault {
	c := i.credential
	f := &fault{class: kek.ErrDenied, says: "it refuses", next: "check tenant, client and kind of the key's credential"}
	renew := "make a new one (Entra admin center, App registrations, Certificates & secrets) and put it into "
	switch code {
	case 7000222:
		f.says, f.next = "the client secret has expired", renew+c.SecretSource
	case 7000215:
		f.says, f.next = "it is not a client secret of the application", "put the value of the secret, not its id, into "+c.SecretSource
	case 700027, 1000502, 50012, 700023, 700030:
		f.says, f.next = "it does not take the certificate: not registered with the application, or expired", renew+c.Certificate
	case 700024:
		f.says, f.next = "the assertion is outside its dates", "set this machine's clock (NTP)"
	case 700016, 7000112, 700213, 70021, 700211, 700212:
		f.says, f.next = "it does not know the application or its federated identity, or has it disabled", "check the application in Entra admin center, App registrations"
	case 90002, 900023:
		f.says, f.next = "it does not know the tenant", "set credential.tenant to the id of the directory, and credential.authority to that of its cloud"
	case 500011:
		f.says, f.next = "the tenant does not know Key Vault", "check that the vault belongs to tenant "+c.Tenant
	case 53003, 53000, 530004:
		f.says, f.next = "a conditional access policy stops it", "exempt the application, or add the address of this machine to the policy"
	}
	if expires := i.expiry(); !expires.IsZero() && i.now().After(expires) {
		f.says, f.next = fmt.Sprintf("the certificate expired on %s", expires.UTC().Format(time.DateOnly)), renew+c.Certificate
	}
	if c.Kind == Arc {
		f.says, f.next = "it gives no token", "check the agent (azcmagent show), the identity, and that the user of the service is in the group himds"
	}
	return f
}

// maxSkew is how far a clock may be off before it is named as a cause. Entra and
// Key Vault bear five minutes.
const maxSkew = 5 * time.Minute

// clockOff says how far this machine's clock is off, or "".
func (i *identity) clockOff() string {
	skew := time.Duration(i.skew.Load())
	switch {
	case skew > maxSkew:
		return fmt.Sprintf("the clock of this machine is %v behind that of the server", skew.Round(time.Minute))
	case skew < -maxSkew:
		return fmt.Sprintf("the clock of this machine is %v ahead of that of the server", -skew.Round(time.Minute))
	}
	return ""
}

// blameClock names the clock in f if it is off.
func (i *identity) blameClock(f *fault) {
	if off := i.clockOff(); off != "" {
		f.says += "; " + off
		f.next = "set this machine's clock (NTP) and try again; if that does not help: " + f.next
	}
}
