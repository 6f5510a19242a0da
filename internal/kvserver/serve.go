package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// settings are what stays the same from one start to the next, besides the vault.
type settings struct {
	Listen string `json:"listen"`
	Proxy  string `json:"proxy,omitempty"` // listens there; "" if none is needed
	Client string `json:"client"`          // id of the application
	Vault  string `json:"vault"`
	Key    string `json:"key"`
	HSM    bool   `json:"managed_hsm,omitempty"`
}

// folder is where everything is kept.
type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

// read returns a file of the folder, nil if it is not there.
func (d folder) read(name string) ([]byte, error) {
	text, err := os.ReadFile(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// keeper writes the state of a server at each change, before the client that asked
// for it has its answer. A crash leaves the state before or after the change.
type keeper struct {
	dir        folder
	complaints io.Writer

	mu     sync.Mutex
	server *kvtest.Server
}

// begin saves the state of server now, and from now on.
func (k *keeper) begin(server *kvtest.Server) {
	k.mu.Lock()
	k.server = server
	k.mu.Unlock()
	k.save()
}

func (k *keeper) save() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server == nil {
		return
	}
	state, err := k.server.State()
	if err == nil {
		err = durable.WriteFile(k.dir.path("state.json"), state)
	}
	if err != nil {
		fmt.Fprintln(k.complaints, "kvserver: keep state:", err)
	}
}

// serve runs a server until ctx is done.
func serve(ctx context.Context, o options, out, complaints io.Writer) (err error) {
	dir, remove, err := openFolder(o.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	lock, err := durable.Lock(dir.path("lock"))
	if err != nil {
		return fmt.Errorf("another kvserver has %s: %w", dir, err)
	}
	defer lock.Close()
	set, err := dir.settings(o)
	if err != nil {
		return err
	}
	state, err := dir.read("state.json")
	if err != nil {
		return err
	}
	k := &keeper{dir: dir, complaints: complaints}
	server, err := kvtest.New(kvtest.Options{Listen: set.Listen, Vaults: []string{set.Vault}, ManagedHSM: set.HSM, State: state, Changed: k.save})
	if err != nil {
		return fmt.Errorf("%w: another address can be given with --listen", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := dir.complete(ctx, server, &set, state == nil, o.bits); err != nil {
		return err
	}
	// A crash up to here leaves no state: the next start is a first one again.
	k.begin(server)
	admin, err := startAdmin(server, dir, set.Vault)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.close()) }()
	if err := dir.describe(out, server, set); err != nil {
		return err
	}
	<-ctx.Done()
	k.save()
	return nil
}

// openFolder returns the folder of the state, and what to do with it at the end.
func openFolder(name string) (folder, func() error, error) {
	if name == "" {
		dir, err := os.MkdirTemp("", "kvserver-")
		return folder(dir), func() error { return os.RemoveAll(dir) }, err
	}
	dir, err := filepath.Abs(name)
	if err != nil {
		return "", nil, err
	}
	return folder(dir), func() error { return nil }, os.MkdirAll(dir, 0o700)
}

// settings returns those of the last start, or new ones, with what the command line
// says.
func (d folder) settings(o options) (settings, error) {
	set := settings{Vault: o.vault, Key: o.key, HSM: o.hsm, Client: newID()}
	text, err := d.read("settings.json")
	if err == nil && text != nil {
		err = json.Unmarshal(text, &set)
	}
	if err != nil {
		return set, fmt.Errorf("read %s: %w", d.path("settings.json"), err)
	}
	if set.Vault != o.vault || set.Key != o.key || set.HSM != o.hsm {
		return set, fmt.Errorf("%s was made with --vault %s --key %s --managed-hsm=%v: give the same, or another folder", d, set.Vault, set.Key, set.HSM)
	}
	set.Listen = cmp.Or(o.listen, set.Listen)
	return set, nil
}

// complete makes what a first start lacks, and writes the files.
func (d folder) complete(ctx context.Context, server *kvtest.Server, set *settings, first bool, bits int) error {
	secret, err := d.read("client-secret")
	if err != nil {
		return err
	}
	if secret == nil {
		secret = []byte(newSecret())
		if err := durable.WriteFile(d.path("client-secret"), secret); err != nil {
			return err
		}
	}
	if first {
		server.AddSecretClient(set.Client, string(secret))
		server.CreateKey(set.Vault, set.Key, kvtest.KeyOptions{Bits: bits})
	}
	set.Listen = server.Address()
	if set.Proxy != "" || !resolves(ctx, server.VaultURL(set.Vault)) {
		address, err := server.Proxy(strings.TrimPrefix(set.Proxy, "http://"))
		if err != nil {
			return fmt.Errorf("start proxy: %w", err)
		}
		set.Proxy = address
	}
	text, err := json.MarshalIndent(set, "", " ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.path("settings.json"), text); err != nil {
		return err
	}
	return durable.WriteFile(d.path("ca.pem"), server.CAPEM())
}

// resolves tells whether this machine knows that names under localhost are its own
// (RFC 6761, 6.3). Not every resolver does.
func resolves(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, u.Hostname())
	for _, a := range found {
		if !a.IP.IsLoopback() {
			return false
		}
	}
	return err == nil && len(found) > 0
}

// describe prints how to use the server.
func (d folder) describe(out io.Writer, server *kvtest.Server, set settings) error {
	text := fmt.Sprintf(`A Key Vault to try Coffer with. Never use it for keys that protect anything.

  vault      %s
  authority  %s
  CA         %s

In coffer.yaml:

keys:
  cloud:
    uri: %q
    credential:
      kind: secret
      tenant: %q
      client: %q
      secret_source: %q
      authority: %q
      ca: %q
`, server.VaultURL(set.Vault), server.Authority(), d.path("ca.pem"), server.KeyURI(set.Vault, set.Key, ""),
		server.Tenant(), set.Client, "file:"+d.path("client-secret"), server.Authority(), d.path("ca.pem"))
	if set.Proxy != "" {
		text += fmt.Sprintf("      proxy: %q # this machine does not resolve names under localhost\n", set.Proxy)
	}
	text += fmt.Sprintf(`
Then, to take the key away, and to give it back:

  kvserver ctl --state %s disable %s
  kvserver ctl --state %s enable %s

`, d, set.Key, d, set.Key)
	_, err := io.WriteString(out, text)
	return err
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// newSecret returns 256 random bits.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
