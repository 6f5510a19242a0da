package kvtest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

const (
	appID  = "11111111-2222-3333-4444-555555555555"
	secret = "correct horse battery staple"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// transport are the options of an Azure client of s. It never tries twice.
func transport(s *kvtest.Server) azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: s.Authority()},
		Transport: s.Client(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
}

func secretCredential(t *testing.T, s *kvtest.Server) azcore.TokenCredential {
	t.Helper()
	s.AddSecretClient(appID, secret)
	cred, err := azidentity.NewClientSecretCredential(s.Tenant(), appID, secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: transport(s), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// keys returns a client of the vault "corp" that authenticates with a secret.
func keys(t *testing.T, s *kvtest.Server) *azkeys.Client {
	t.Helper()
	return keysWith(t, s, secretCredential(t, s))
}

func keysWith(t *testing.T, s *kvtest.Server, cred azcore.TokenCredential) *azkeys.Client {
	t.Helper()
	c, err := azkeys.NewClient(s.VaultURL("corp"), cred, &azkeys.ClientOptions{ClientOptions: transport(s)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// public returns the RSA key of a bundle.
func public(t *testing.T, k *azkeys.JSONWebKey) *rsa.PublicKey {
	t.Helper()
	if k == nil || k.N == nil || k.E == nil {
		t.Fatalf("the bundle has no RSA key: %+v", k)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(new(big.Int).SetBytes(k.E).Int64())}
}

// sealed wraps data as the agent does: here, with the public key.
func sealed(t *testing.T, to *rsa.PublicKey, data []byte) []byte {
	t.Helper()
	out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func operation(alg azkeys.EncryptionAlgorithm, value []byte) azkeys.KeyOperationParameters {
	return azkeys.KeyOperationParameters{Algorithm: &alg, Value: value}
}

// unwrap unwraps with RSA-OAEP-256.
func unwrap(ctx context.Context, c *azkeys.Client, key, version string, value []byte) ([]byte, error) {
	r, err := c.UnwrapKey(ctx, key, version, operation(azkeys.EncryptionAlgorithmRSAOAEP256, value), nil)
	return r.Result, err
}

// wantError checks status and text of an answer.
func wantError(t *testing.T, err error, status int, texts ...string) {
	t.Helper()
	var r *azcore.ResponseError
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want an answer with status %d", err, status)
	}
	if r.StatusCode != status {
		t.Errorf("status %d, want %d: %v", r.StatusCode, status, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error lacks %q: %v", text, err)
		}
	}
}

// TestRoundTrip: what is wrapped with the public half in a bundle, the server
// unwraps, with the newest version and with a named one.
func TestRoundTrip(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	for _, bits := range []int{2048, 3072, 4096} {
		version := s.CreateKey("corp", "backup", kvtest.KeyOptions{Bits: bits, Tags: map[string]string{"purpose": "test"}})
		c := keys(t, s)
		got, err := c.GetKey(t.Context(), "Backup", "", nil) // names are the same in any case
		if err != nil {
			t.Fatal(err)
		}
		if got.Key.KID.Version() != version || !strings.HasPrefix(string(*got.Key.KID), s.VaultURL("corp")+"/keys/backup/") {
			t.Errorf("kid %s, want version %s", *got.Key.KID, version)
		}
		if *got.Key.Kty != azkeys.KeyTypeRSA || public(t, got.Key).N.BitLen() != bits || *got.Tags["purpose"] != "test" {
			t.Errorf("bundle %+v", got.Key)
		}
		value := sealed(t, public(t, got.Key), []byte("secret"))
		for _, v := range []string{"", version} {
			if opened, err := unwrap(t.Context(), c, "backup", v, value); err != nil || string(opened) != "secret" {
				t.Errorf("%d bits, version %q: %q, %v", bits, v, opened, err)
			}
		}
	}
	if n := s.Calls(kvtest.OpUnwrap); n != 6 {
		t.Errorf("%d calls of unwrap, want 6", n)
	}
	for _, r := range s.Requests() {
		if strings.Contains(r.Path, "backup") && r.Status == 200 && (r.Client != appID || r.Vault != "corp" || r.APIVersion != "2025-07-01") {
			t.Errorf("log has %+v", r)
		}
	}
}

// TestAlgorithms: each algorithm that the service has, wrapped and unwrapped there,
// and encrypted and decrypted.
func TestAlgorithms(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	version := s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	c := keys(t, s)
	for _, alg := range []azkeys.EncryptionAlgorithm{azkeys.EncryptionAlgorithmRSAOAEP256, azkeys.EncryptionAlgorithmRSAOAEP, azkeys.EncryptionAlgorithmRSA15} {
		wrapped, err := c.WrapKey(t.Context(), "backup", "", operation(alg, []byte("secret")), nil)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if wrapped.KID.Version() != version {
			t.Errorf("%s: wrapped with %s, want version %s", alg, *wrapped.KID, version)
		}
		opened, err := c.UnwrapKey(t.Context(), "backup", version, operation(alg, wrapped.Result), nil)
		if err != nil || string(opened.Result) != "secret" {
			t.Errorf("%s: unwrapped %q, %v", alg, opened.Result, err)
		}
		encrypted, err := c.Encrypt(t.Context(), "backup", version, operation(alg, []byte("secret")), nil)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		decrypted, err := c.Decrypt(t.Context(), "backup", "", operation(alg, encrypted.Result), nil)
		if err != nil || string(decrypted.Result) != "secret" {
			t.Errorf("%s: decrypted %q, %v", alg, decrypted.Result, err)
		}
	}
	_, err := unwrap(t.Context(), c, "backup", "", bytes.Repeat([]byte{1}, 256))
	wantError(t, err, http.StatusBadRequest, "BadParameter", "The parameter is incorrect.")
	_, err = c.WrapKey(t.Context(), "backup", "", operation(azkeys.EncryptionAlgorithmA256KW, []byte("secret")), nil)
	wantError(t, err, http.StatusBadRequest, "A256KW")
	_, err = c.WrapKey(t.Context(), "backup", "", operation(azkeys.EncryptionAlgorithmRSAOAEP256, make([]byte, 191)), nil)
	wantError(t, err, http.StatusBadRequest, "BadParameter")
}

// TestUnsuitableKeys: keys that nobody should use are there and say what they are.
func TestUnsuitableKeys(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	s.CreateKey("corp", "curve", kvtest.KeyOptions{EC: true})
	s.CreateKey("corp", "small", kvtest.KeyOptions{Bits: 1024})
	s.CreateKey("corp", "signer", kvtest.KeyOptions{Ops: []string{"sign", "verify"}})
	c := keys(t, s)
	curve, err := c.GetKey(t.Context(), "curve", "", nil)
	if err != nil || *curve.Key.Kty != azkeys.KeyTypeEC || *curve.Key.Crv != azkeys.CurveNameP256 || len(curve.Key.X) != 32 || len(curve.Key.Y) != 32 {
		t.Errorf("EC key: %+v, %v", curve.Key, err)
	}
	small, err := c.GetKey(t.Context(), "small", "", nil)
	if err != nil || public(t, small.Key).N.BitLen() != 1024 {
		t.Errorf("small key: %+v, %v", small.Key, err)
	}
	_, err = unwrap(t.Context(), c, "signer", "", make([]byte, 256))
	wantError(t, err, http.StatusForbidden, "Operation unwrapKey is not permitted on this key")
	_, err = unwrap(t.Context(), c, "curve", "", make([]byte, 256))
	wantError(t, err, http.StatusForbidden, "is not permitted on this key")
	_, err = c.GetKey(t.Context(), "none", "", nil)
	wantError(t, err, http.StatusNotFound, "KeyNotFound", "A key with (name/id) none was not found in this key vault.")
	_, err = c.GetKey(t.Context(), "small", strings.Repeat("0", 32), nil)
	wantError(t, err, http.StatusNotFound, "KeyNotFound")
}

// TestSameMaterial: two servers have different keys unless they are given the same.
func TestSameMaterial(t *testing.T) {
	one, two := kvtest.Start(t, kvtest.Options{}), kvtest.Start(t, kvtest.Options{})
	one.CreateKey("corp", "backup", kvtest.KeyOptions{})
	two.CreateKey("corp", "backup", kvtest.KeyOptions{})
	if one.Material("corp", "backup", "").Public().(*rsa.PublicKey).Equal(two.Material("corp", "backup", "").Public()) {
		t.Error("two servers have the same key")
	}
	two.CreateKey("corp", "backup", kvtest.KeyOptions{Material: one.Material("corp", "backup", "")})
	got, err := keys(t, two).GetKey(t.Context(), "backup", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !public(t, got.Key).Equal(one.Material("corp", "backup", "").Public()) {
		t.Error("the second server does not have the key of the first")
	}
}
