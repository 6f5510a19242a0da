package keyvault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/cofferbackup/coffer/kek"
)

// fault is why a call did not do what it was asked.
type fault struct {
	class  error // of kek
	doing  string
	status int    // of the vault's answer, 0 if it gave none
	code   string // of the vault: the innermost
	says   string
	next   string        // what to do, or ""
	again  bool          // the same call may do better later
	after  time.Duration // the vault asks for that much patience
}

func (f *fault) Error() string {
	text := f.class.Error()
	for _, part := range []string{f.doing, f.says, f.next} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}

func (f *fault) Unwrap() error { return f.class }

// is reports whether err is a fault with that code.
func is(err error, code string) bool {
	var f *fault
	return errors.As(err, &f) && f.code == code
}

// Codes of Key Vault that mean more than their status.
const (
	codeDisabled   = "KeyDisabled"
	codeDeleted    = "ObjectIsDeletedButRecoverable"
	codeRecovering = "ObjectIsBeingRecovered"
	codeDeleting   = "ObjectIsBeingDeleted"
	codeByFirewall = "ForbiddenByFirewall"
)

// refusedBy is the body of an error of Key Vault.
type refusedBy struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Inner   struct {
			Code string `json:"code"`
		} `json:"innererror"`
	} `json:"error"`
}

// explain says what err, with which the client returned, means. last is what was
// noted of its requests.
func (v *vault) explain(ctx context.Context, doing string, a address, err error, last exchange) error {
	if interrupted := kek.Interrupted(ctx, doing); interrupted != nil {
		return interrupted
	}
	var f *fault
	var answered *azcore.ResponseError
	switch {
	case errors.As(err, &f):
		copied := *f // a token's fault is shared by those who waited for it
		f = &copied
	case errors.As(err, &answered) && answered.RawResponse != nil:
		f = v.answered(a, answered.RawResponse)
	case last.err != nil:
		f = netFault(last.err, last.host, v.id.credential.Proxy)
		if last.host == hostname(v.host) {
			v.blameName(f, last.err, a)
		}
	case errors.Is(err, context.DeadlineExceeded):
		f = &fault{class: kek.ErrUnreachable, again: true, says: fmt.Sprintf("%s does not answer within %v", v.host, tryTimeout), next: "try again later"}
	default:
		f = &fault{class: kek.ErrUnreachable, says: fmt.Sprintf("%s answers %d and not as Key Vault does", v.host, last.status),
			next: "check the key's URI and credential.authority, and whether a proxy answers in its place"}
	}
	f.doing = doing
	return f
}

// answered says what an error that the vault returned means.
func (v *vault) answered(a address, response *http.Response) *fault {
	var body refusedBy
	if text, err := runtime.Payload(response); err == nil {
		// What is not JSON has no code, and the status decides.
		_ = json.Unmarshal(text, &body)
	}
	code := body.Error.Inner.Code
	if code == "" {
		code = body.Error.Code
	}
	if f := statusFault(response); f != nil {
		f.says = v.host + " " + f.says
		f.code = code
		return f
	}
	f := &fault{status: response.StatusCode, code: code, says: fmt.Sprintf("%s answers %d", v.host, response.StatusCode)}
	if code != "" {
		first, _, _ := strings.Cut(body.Error.Message, "\r\n") // the rest is for support
		f.says += " (" + clean(code+": "+first) + ")"
	}
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		f.class, f.next = kek.ErrDenied, "check that the vault belongs to the tenant of the credential"
		v.id.blameClock(f)
	case response.StatusCode == http.StatusForbidden:
		f.class, f.next = kek.ErrDenied, v.permit(a, code)
	case code == codeRecovering:
		f.class, f.next = kek.ErrUnreachable, "it is being recovered: try again in some minutes"
	case response.StatusCode == http.StatusConflict && (code == codeDeleted || code == codeDeleting):
		f.class, f.next = kek.ErrMissing, "recover it: "+a.az("recover")
	case response.StatusCode == http.StatusNotFound && code != "":
		f.class, f.next = kek.ErrMissing, "check the name in the key's URI; if the key was deleted, recover it: "+a.az("recover")
	case response.StatusCode == http.StatusBadRequest && code != "":
		f.class = kek.ErrUnsuitable
	default:
		f.class, f.next = kek.ErrUnreachable, "check the key's URI, and whether a proxy answers in its place"
	}
	return f
}

// permit says how to lift a 403.
func (v *vault) permit(a address, code string) string {
	switch code {
	case codeDisabled:
		return "enable it (portal: Keys, " + a.name + ", the version, Enabled; or " + a.azVersion("set-attributes") + " --enabled true)"
	case codeByFirewall:
		return "let the address of this machine in (portal: Networking; az keyvault network-rule add)"
	}
	who := v.id.credential.assignee()
	if v.hsm {
		return fmt.Sprintf("give the role: az keyvault role assignment create --hsm-name %s --role %q --assignee %s --scope /keys/%s; it takes up to 10 minutes",
			a.label(), roleHSM, who, a.name)
	}
	return fmt.Sprintf("give %s the role %q on the vault (portal: Access control (IAM)), or with access policies get, list and unwrapKey (az keyvault set-policy --name %s --spn %s --key-permissions get list unwrapKey); it takes up to 10 minutes. If the vault has a firewall, let this machine in",
		who, roleVault, a.label(), who)
}

// The least roles that get, list and unwrap.
const (
	roleVault = "Key Vault Crypto Service Encryption User"
	roleHSM   = "Managed HSM Crypto Service Encryption User"
)

// statusFault returns the fault of an answer that says nothing about the key, or nil.
func statusFault(response *http.Response) *fault {
	f := &fault{class: kek.ErrUnreachable, status: response.StatusCode, again: true, after: retryAfter(response.Header)}
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests:
		f.says, f.next = "has too many calls to answer (429)", "try again later"
	case status == http.StatusRequestTimeout, status >= 500:
		f.says, f.next = fmt.Sprintf("answers %d", status), "try again later, and see whether Azure reports an outage"
	default:
		return nil
	}
	if f.after > maxPatience {
		f.next = fmt.Sprintf("it asks for silence for %v", f.after.Round(time.Second))
	}
	return f
}

// retryAfter reads how long the server wants to be left alone; 0 if it does not say.
func retryAfter(h http.Header) time.Duration {
	for name, unit := range map[string]time.Duration{"Retry-After": time.Second, "Retry-After-Ms": time.Millisecond, "X-Ms-Retry-After-Ms": time.Millisecond} {
		if n, err := strconv.ParseUint(h.Get(name), 10, 31); err == nil && n > 0 {
			return time.Duration(n) * unit
		}
	}
	at, err := http.ParseTime(h.Get("Retry-After"))
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// netFault is for a request that got no answer, or half of one.
func netFault(err error, host, proxy string) *fault {
	f := &fault{class: kek.ErrUnreachable, again: true, says: host + ": " + clean(cause(err).Error())}
	var (
		name      *net.DNSError
		expired   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		other     x509.HostnameError
		large     *http.MaxBytesError
	)
	switch {
	case errors.As(err, &name):
		f.says = host + " is not found in DNS"
		f.next = "check the name, and the name server of this machine"
		f.again = !name.IsNotFound
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		f.again = false
		f.next = "check this machine's clock, then the certificate of the server"
	case errors.As(err, &authority):
		f.again = false
		f.next = "if the certificate is right, name its authority in credential.ca"
	case errors.As(err, &other), errors.As(err, &large):
		f.again = false
		f.next = "check whether something else answers under this name"
	default:
		f.next = "let this machine reach " + host + " on port 443, or set credential.proxy"
		if proxy != "" {
			f.next = "see whether the proxy " + proxy + " works and lets " + host + " through"
		}
	}
	return f
}

// blameName adds what a vault's name that is not in DNS may mean.
func (v *vault) blameName(f *fault, err error, a address) {
	var name *net.DNSError
	if errors.As(err, &name) && name.IsNotFound {
		f.next += "; if the vault was deleted, recover it: az keyvault recover --name " + a.label()
	}
}

// cause drops the URL that net/http puts before an error.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func hostname(host string) string {
	name, _, _ := strings.Cut(host, ":")
	return name
}

// clean makes one short line of what a server said.
func clean(text string) string {
	const longest = 200
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + " ..."
	}
	return text
}
