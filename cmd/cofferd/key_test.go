//go:build linux

package main_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// TestUnfitKeys offers what may not open a vault. None is made with it, and the
// place stays empty for the right one.
func TestUnfitKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		pem  []byte
		mode os.FileMode
		says string
	}{
		"missing":            {nil, 0, "kek.pem"},
		"not RSA":            {pkcs8(t, curve), 0o600, "RSA"},
		"too small":          {pkcs8(t, weak), 0o600, "1024"},
		"readable by others": {pkcs8(t, strong), 0o644, "chmod 600"},
		"no key at all":      {[]byte("hello\n"), 0o600, "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, plain)
			h.start()
			if tt.pem != nil {
				must(t, os.WriteFile(h.path("kek.pem"), tt.pem, 0o600))
				must(t, os.Chmod(h.path("kek.pem"), tt.mode))
			}
			h.coffer("vault", "create", "local").fails(control.ExitKeys, "key main", tt.says)
			if _, err := os.Stat(h.path("vault")); err == nil {
				t.Error("a vault was begun without a key that may open it")
			}
			h.coffer("status").says(control.ExitDone, "not made yet")
			must(t, os.RemoveAll(h.path("kek.pem")))
			h.coffer("key", "create", "main").done()
			h.coffer("vault", "create", "local").done()
		})
	}
}

// TestKeyGone takes the key of a vault away and brings it back.
func TestKeyGone(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	kept := h.backup("docs").ID
	h.stop()
	must(t, os.Rename(h.path("kek.pem"), h.path("away.pem")))
	h.start() // an alarm, not a refusal
	h.coffer("status").says(control.ExitDone, "inaccessible", "kek.pem")
	for _, args := range [][]string{{"backup", "docs"}, {"restore", "docs", h.path("back")}, {"verify", "docs"}, {"cat", "docs", h.path("docs/letter.txt")}, {"point", "list", "docs"}} {
		h.coffer(args...).fails(control.ExitKeys, "kek.pem")
	}
	if _, err := os.Stat(h.path("back")); err == nil {
		t.Error("a restore without a key touched its target")
	}
	h.coffer("key", "create", "main").done() // another key is not the vault's
	h.coffer("backup", "docs").fails(control.ExitKeys)
	must(t, os.Rename(h.path("away.pem"), h.path("kek.pem")))
	h.stop()
	h.start()
	h.coffer("restore", "docs@"+kept, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// TestWrongPIN has a PIN that is wrong: it is said, and the token is asked once,
// however often somebody tries.
func TestWrongPIN(t *testing.T) {
	tok, calls := testkit.Faulty(t, testkit.SoftHSM(t))
	h := newHost(t, hsm(tok))
	fill(t, h.path("docs"), 1, 2, 100)
	h.ready()
	h.backup("docs")
	h.stop()

	tok.WritePIN(t, "not-the-pin")
	before := calls.Calls(testkit.Login)
	h.start()
	for range 3 {
		h.coffer("backup", "docs").fails(control.ExitKeys, "PIN")
		h.coffer("status").says(control.ExitDone, "PIN")
	}
	if n := calls.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("the token was given the wrong PIN %d times, want once", n)
	}
	tok.WritePIN(t, tok.PIN)
	h.stop()
	h.start()
	h.coffer("backup", "docs").done()
}

// hsm is plain with the key on a token.
func hsm(tok testkit.Token) string {
	return `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "` + tok.URI("coffer-kek") + `"}
vaults:
  local: {store: "file://$DIR/vault", keys: [main]}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
  pipe: {vault: local, stream: {name: dump}}
`
}

// TestSecretsStayInside looks for the PIN, the software key and what was kept, in
// all that the agent writes.
func TestSecretsStayInside(t *testing.T) {
	tok := testkit.SoftHSM(t)
	for name, config := range map[string]string{"software": plain, "hsm": hsm(tok)} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, config)
			furnish(t, h.path("docs"))
			h.ready()
			h.backup("docs")
			h.coffer("restore", "docs", h.path("back")).done()
			h.coffer("verify").done()
			h.coffer("status").done()
			h.stop()
			words := map[string][]byte{"the PIN": []byte(tok.PIN), "a sentence that was kept": []byte("Dear vault")}
			if raw, err := os.ReadFile(h.path("kek.pem")); err == nil {
				key, err := x509.ParsePKCS8PrivateKey(block(t, raw))
				must(t, err)
				p := key.(*rsa.PrivateKey)
				words["the key's exponent"], words["a prime of the key"] = p.D.Bytes(), p.Primes[0].Bytes()
				words["the key's PEM"] = raw[60:120]
			}
			noneOf(t, h.path("state"), words)
			noneOf(t, h.path("vault"), words)
			for _, log := range objects(t, h.dir, h.path("log")) {
				noneOf(t, log, words)
			}
		})
	}
}

// TestHardened looks at a running agent as the kernel sees it: no core dumps, and
// no other process of its user reads its memory.
func TestHardened(t *testing.T) {
	needRoot(t)
	h := newHost(t, plain)
	h.as = nobody(t, h)
	h.start()
	proc := filepath.Join("/proc", itoa(h.daemon.cmd.Process.Pid))
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	must(t, err)
	if !coreIsZero.Match(limits) {
		t.Errorf("core dumps are allowed:\n%s", limits)
	}
	// What is not dumpable belongs to root, though the process is another's.
	if uid := owner(t, filepath.Join(proc, "mem")); uid != 0 {
		t.Errorf("its memory belongs to user %d, so it is dumpable", uid)
	}
}

func pkcs8(t testing.TB, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func block(t testing.TB, raw []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(raw)
	if b == nil {
		t.Fatal("no PEM")
	}
	return b.Bytes
}
