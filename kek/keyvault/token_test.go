package keyvault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// TestOneToken: keys with one credential share a token, in all vaults, and whoever
// comes first.
func TestOneToken(t *testing.T) {
	b := newBench(t, kvtest.Options{Vaults: []string{"corp", "east"}})
	b.server.CreateKey("corp", keyName, kvtest.KeyOptions{})
	b.server.CreateKey("east", keyName, kvtest.KeyOptions{})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			uri := b.server.KeyURI([]string{"corp", "east"}[i%2], keyName, "")
			keys, err := keyvault.Open(t.Context(), b.config(uri))
			if err != nil {
				t.Error(err)
				return
			}
			if err := keys[0].Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := b.server.Calls(kvtest.OpToken); n != 1 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// TestTokenEnds: an expired token, and one that is revoked, is replaced without
// anyone noticing.
func TestTokenEnds(t *testing.T) {
	b := newBench(t, kvtest.Options{TokenLifetime: time.Hour})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	for i, end := range []func(){func() { b.pass(2 * time.Hour) }, b.server.RevokeTokens, func() { b.pass(2 * time.Hour) }} {
		end()
		unwrap(t, k, w, "secret")
		unwrap(t, k, w, "secret")
		if n := b.server.Calls(kvtest.OpToken); n != i+2 {
			t.Errorf("after %d ends, %d tokens were asked for", i+1, n)
		}
	}
}

// TestSecretRenewed: a secret that is renewed in its file is used without a restart.
func TestSecretRenewed(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	const renewed = "another-secret-that-nobody-sees"
	b.server.RemoveClient(clientID)
	b.server.AddSecretClient(clientID, renewed)
	b.server.RevokeTokens()
	_, err := k.Unwrap(t.Context(), w)
	b.want(err, kek.ErrDenied, "AADSTS7000215", b.cred.SecretSource)
	if err := os.WriteFile(strings.TrimPrefix(b.cred.SecretSource, "file:"), []byte(renewed), 0o600); err != nil {
		t.Fatal(err)
	}
	unwrap(t, k, w, "secret")
}

// TestTokenOutage: while a token lasts, nobody notices that there are no new ones.
// After that the key is unreachable, and not denied.
func TestTokenOutage(t *testing.T) {
	for name, outage := range map[string]kvtest.Fault{
		"reset":     {Reset: true},
		"500":       {Status: 500},
		"throttled": {Status: 429},
	} {
		b := newBench(t, kvtest.Options{TokenLifetime: time.Hour})
		k := b.made(kvtest.KeyOptions{})
		w := wrap(t, k, "secret")
		outage.Ops = []kvtest.Op{kvtest.OpToken, kvtest.OpDiscovery}
		lift := b.server.Inject(outage)
		b.pass(50 * time.Minute)
		unwrap(t, k, w, "secret")
		b.pass(time.Hour)
		_, err := k.Unwrap(t.Context(), w)
		b.want(err, kek.ErrUnreachable, "no token")
		lift()
		unwrap(t, k, w, "secret")
		if t.Failed() {
			t.Fatalf("with %s", name)
		}
	}
	b := newBench(t, kvtest.Options{})
	b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	b.server.LoseDNS("localhost")
	_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrUnreachable, "no token", "localhost is not found in DNS")
}

// TestNotLetIn: each refusal of the token endpoint is denied, with its own remedy.
func TestNotLetIn(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(b *bench)
		says  []string
	}{
		"wrong secret": {func(b *bench) { b.cred.SecretSource = "file:" + private(b.t, "s", "wrong-secret-here") },
			[]string{"AADSTS7000215", "value of the secret, not its id"}},
		"unknown application":  {func(b *bench) { b.server.RemoveClient(clientID) }, []string{"AADSTS700016", "App registrations"}},
		"disabled application": {func(b *bench) { b.server.RefuseClient(clientID) }, []string{"AADSTS7000112", "disabled"}},
		"other tenant": {func(b *bench) { b.cred.Tenant = "00000000-0000-4000-8000-000000000001" },
			[]string{"the vault belongs to tenant"}},
		"unknown tenant": {func(b *bench) { b.cred.Tenant = "contoso.example" }, []string{"AADSTS90002", "credential.tenant"}},
		"expired certificate": {func(b *bench) { b.useCertificate(time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, -2)) },
			[]string{"the certificate expired on " + time.Now().AddDate(0, 0, -2).UTC().Format(time.DateOnly), "client.pem"}},
		"unknown certificate": {func(b *bench) {
			b.useCertificate(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
			_, b.cred.Certificate = certificate(b.t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
		}, []string{"AADSTS700027", "not registered"}},
		"no file": {func(b *bench) { b.cred.SecretSource = "file:/does/not/exist" }, []string{"cannot be read", "/does/not/exist"}},
		"not a certificate": {func(b *bench) {
			b.useCertificate(time.Now(), time.Now().AddDate(1, 0, 0))
			b.cred.Certificate = private(b.t, "c.pem", "hello")
		}, []string{"no private key", "one PEM file"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kvtest.Options{})
			b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
			test.spoil(b)
			_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
			b.want(err, kek.ErrDenied, test.says...)
		})
	}
}

// TestCertificateFile: what a certificate file may hold.
func TestCertificateFile(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for fault, make := range map[string]func(cert, key string, old []byte) string{
		"":                           func(cert, key string, _ []byte) string { return key + cert },
		"of type":                    func(cert, _ string, _ []byte) string { return cert + block("ENCRYPTED PRIVATE KEY", []byte("x")) },
		"is not RSA":                 func(cert, _ string, _ []byte) string { return cert + block("PRIVATE KEY", pkcs8) },
		"more than one private key":  func(cert, key string, _ []byte) string { return cert + key + key },
		"no certificate":             func(_, key string, _ []byte) string { return key },
		"no private key":             func(cert, _ string, _ []byte) string { return cert },
		"private key cannot be read": func(cert, _ string, _ []byte) string { return cert + block("PRIVATE KEY", []byte("x")) },
		"read certificate":           func(_, key string, _ []byte) string { return key + block("CERTIFICATE", []byte("x")) },
		"none of its certificates":   func(_, key string, other []byte) string { return key + block("CERTIFICATE", other) },
	} {
		b := newBench(t, kvtest.Options{})
		b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
		b.useCertificate(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
		text, err := os.ReadFile(b.cred.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		other, _ := certificateOf(t, stranger, time.Now(), time.Now())
		cert, key, _ := strings.Cut(string(text), "-----BEGIN PRIVATE")
		b.cred.Certificate = private(t, "c.pem", make(cert, "-----BEGIN PRIVATE"+key, other.Raw))
		if _, err := keyvault.Open(t.Context(), b.config(b.uri(""))); fault == "" {
			b.want(err, nil)
		} else {
			b.want(err, kek.ErrDenied, fault, "c.pem")
		}
	}
}

// TestClockOff: where a clock that is an hour off stops the agent, the error names
// it; where it does not, the check of the key does.
func TestClockOff(t *testing.T) {
	for off, says := range map[time.Duration]string{
		time.Hour:  "the clock of this machine is 1h0m0s behind",
		-time.Hour: "the clock of this machine is 1h0m0s ahead",
	} {
		b := newBench(t, kvtest.Options{AuthorityClock: func() time.Time { return time.Now().Add(off) }})
		b.skew = off
		b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
		keys := b.open(t, b.uri("")) // a secret has no dates
		step := find(t, keyvault.Check(t.Context(), b.config(b.uri(""))), kek.StageIdentity)
		if step.Verdict != kek.Warned || !strings.Contains(step.Says, says) || !strings.Contains(step.Next, "NTP") {
			t.Errorf("Check says %+v", step)
		}
		date := b.Now().Add(time.Minute)
		b.server.Update(vaultName, keyName, "", kvtest.Update{NotBefore: &date})
		inspect(t, keys[0])
		_, err := keys[0].Wrap([]byte("x"))
		b.want(err, kek.ErrUnsuitable, "not valid before", says)

		b.useCertificate(time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0))
		_, err = keyvault.Open(t.Context(), b.config(b.uri("")))
		b.want(err, kek.ErrDenied, "AADSTS700024", says, "set this machine's clock (NTP)")
	}
}

// TestWorkload signs in with the token of a workload identity.
func TestWorkload(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	const token = "eyJhbGciOiJub25lIn0.token-of-the-workload.sig"
	b.server.AddWorkloadClient(clientID, token)
	b.cred.Kind, b.cred.SecretSource, b.cred.TokenFile = keyvault.Workload, "", private(t, "token", token+"\n")
	k := b.made(kvtest.KeyOptions{})
	unwrap(t, k, wrap(t, k, "secret"), "secret")
	b.server.RemoveClient(clientID)
	b.server.RevokeTokens()
	b.want(k.Check(t.Context()), kek.ErrDenied)
}

// TestArc signs in as the machine, through the agent of Azure Arc.
func TestArc(t *testing.T) {
	const dir = "/var/opt/azcmagent/tokens" // the client takes no other
	if _, err := os.Stat(dir); err != nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			testkit.Missing(t, dir, "run as root: "+err.Error())
		}
		t.Cleanup(func() { os.Remove(dir); os.Remove("/var/opt/azcmagent") })
	}
	b := newBench(t, kvtest.Options{})
	b.cred = keyvault.Credential{Kind: keyvault.Arc, Authority: b.server.Authority()}
	b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrDenied, "no Azure Arc agent", "azcmagent connect")

	t.Setenv("IDENTITY_ENDPOINT", b.server.ArcEndpoint(dir))
	t.Setenv("IMDS_ENDPOINT", "http://localhost:40342")
	k := b.open(t, b.uri(""))[0]
	unwrap(t, k, wrap(t, k, "secret"), "secret")

	b.cred.Client = clientID // which is no identity of the machine
	_, err = keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrUnreachable)
}
