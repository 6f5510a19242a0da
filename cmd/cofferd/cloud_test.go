//go:build linux

package main_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// The application that the agent is to the Key Vault of a test.
const (
	application = "5f0c7b7e-0000-4000-8000-00000000c0ff"
	inVault     = kvtest.DefaultVault
)

// cloud is a Key Vault of a test's own, with a client secret for the agent.
type cloud struct {
	*kvtest.Server
	proxy, secret string
}

// newCloud starts a Key Vault.
func newCloud(t testing.TB, opts kvtest.Options) *cloud {
	t.Helper()
	testkit.Part(t, "Key Vault")
	c := &cloud{Server: kvtest.Start(t, opts), secret: filepath.Join(t.TempDir(), "secret")}
	must(t, os.WriteFile(c.secret, []byte("a-secret-of-the-application\n"), 0o600))
	c.AddSecretClient(application, "a-secret-of-the-application")
	proxy, err := c.Proxy("")
	must(t, err)
	c.proxy = proxy
	return c
}

// credential is that of a key, as the configuration has it.
func (c *cloud) credential() string {
	return fmt.Sprintf("{kind: secret, tenant: %q, client: %q, secret_source: %q, authority: %q, ca: %q, proxy: %q}",
		c.Tenant(), application, "file:"+c.secret, c.Authority(), c.CAFile(), c.proxy)
}

// entry is a key of the configuration.
func (c *cloud) entry(name, uri string) string {
	return fmt.Sprintf("  %s: {uri: %q, credential: %s}\n", name, uri, c.credential())
}

// keeping is a configuration with these keys, and with two items in a vault that says
// so much of itself.
func keeping(vault string, keys ...string) string {
	return `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
` + strings.Join(keys, "") + `
vaults:
  local: {store: "file://$DIR/vault", ` + vault + `}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
  more: {vault: local, files: {paths: [$DIR/docs]}}
`
}

// onToken is a key of the configuration that is on a token.
func onToken(name string, tok testkit.Token) string {
	return fmt.Sprintf("  %s: {uri: %q}\n", name, tok.URI("coffer-kek"))
}

// inFile is a key of the configuration that is in a file of the host.
func inFile(name string) string {
	return fmt.Sprintf("  %s: {uri: \"file://$DIR/%s.pem\"}\n", name, name)
}

// begin gives the host something to back up, and has its agent make a key, by flags, and
// the vault under it. It returns the vault's id.
func (h *host) begin(key string, flags ...string) string {
	h.Helper()
	furnish(h, h.path("docs"))
	h.start()
	h.coffer(append([]string{"key", "create", key}, flags...)...).done()
	return h.vaultCreate()
}

// vaultCreate makes the vault of the configuration, and returns its id.
func (h *host) vaultCreate() string {
	h.Helper()
	return fromJSON[control.VaultCreated](h.coffer("vault", "create", "local", "--json").done()).ID
}

// vault is the vault as the agent sees it.
func (h *host) vault() control.Vault {
	h.Helper()
	return fromJSON[control.Vault](h.coffer("vault", "show", "local", "--json").done())
}

// restores requires that an item comes back as docs is now.
func (h *host) restores(what string) {
	h.Helper()
	back, err := os.MkdirTemp(h.dir, "back")
	must(h, err)
	h.coffer("restore", what, back).done()
	sameTree(h, h.path("docs"), filepath.Join(back, h.path("docs")))
}

// covered requires that each key version in use opens every secret, and that there
// are as many of them as names.
func covered(t testing.TB, all []control.Coverage, names ...string) {
	t.Helper()
	var found []string
	for _, c := range all {
		if !c.InUse {
			continue
		}
		found = append(found, c.Key)
		if c.Percent != 100 || c.Owed != 0 {
			t.Errorf("key %s opens %v %% of the secrets, and is owed %d", c.Key, c.Percent, c.Owed)
		}
	}
	if !slices.Equal(found, names) {
		t.Errorf("keys %q are in use, want %q", found, names)
	}
}

// rotate rotates the vault.
func (h *host) rotate(args ...string) control.RekeyResult {
	h.Helper()
	return *fromJSON[control.Job](h.coffer(append([]string{"key", "rotate", "local", "--json"}, args...)...).done()).Result.Rekey
}

// escrow writes the public half of a key whose private half is nowhere.
func (h *host) escrow(name string) {
	h.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(h, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(h, err)
	h.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

// running is a program that runs beside the test.
type running struct {
	t    testing.TB
	cmd  *exec.Cmd
	end  chan result
	text *safeText
}

// beside starts coffer and returns at once.
func (h *host) beside(args ...string) *running {
	h.Helper()
	r := &running{t: h, cmd: h.command(h.Context(), "coffer", args...), end: make(chan result, 1), text: new(safeText)}
	r.cmd.Stdout, r.cmd.Stderr = r.text, r.text
	must(h, r.cmd.Start())
	go func() {
		_ = r.cmd.Wait() // its exit code is looked at
		r.end <- result{t: h, what: strings.Join(r.cmd.Args, " "), code: r.cmd.ProcessState.ExitCode(), out: r.text.String()}
	}()
	return r
}

// said waits until the program has said something.
func (r *running) said(words string) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("%s says %q", r.cmd.Args[1:], words), func() bool { return strings.Contains(r.text.String(), words) })
}

// ended waits for the program's end.
func (r *running) ended() result {
	r.t.Helper()
	return <-r.end
}

// safeText is what a program says, to be read while it speaks.
type safeText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *safeText) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *safeText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
