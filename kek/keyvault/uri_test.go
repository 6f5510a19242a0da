package keyvault_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
)

// offline is a transport that notes who was asked, and reaches nobody.
type offline struct{ asked []string }

func (o *offline) RoundTrip(req *http.Request) (*http.Response, error) {
	o.asked = append(o.asked, req.URL.Host)
	return nil, errors.New("offline")
}

func tryOpen(t *testing.T, uri, authority string) (*offline, error) {
	t.Helper()
	o := new(offline)
	_, err := keyvault.Open(t.Context(), keyvault.Config{
		Name: "main", URI: uri, Transport: o, Wait: func(context.Context, time.Duration) error { return nil },
		Credential: keyvault.Credential{Kind: keyvault.Secret, Tenant: "tenant", Client: "client", SecretSource: "env:NONE", Authority: authority},
	})
	return o, err
}

// TestURI: what is not a key of a vault of the credential's cloud is refused before
// anyone is asked.
func TestURI(t *testing.T) {
	const version = "78deebed173b48e48f55abf87ed4cf71"
	for _, test := range []struct{ uri, authority, fault string }{
		{"https://corp.vault.azure.net/keys/backup", "", ""},
		{"https://corp.vault.azure.net/keys/backup/" + version, "", ""},
		{"https://CORP.Vault.Azure.Net:443/keys/backup", "", ""},
		{"https://corp.vault.azure.cn/keys/backup", "", ""},
		{"https://corp.vault.usgovcloudapi.net/keys/backup", "", ""},
		{"https://corp.managedhsm.azure.net/keys/backup", "", ""},
		{"https://corp.managedhsm.azure.cn/keys/b", "https://login.chinacloudapi.cn/", ""},
		{"https://corp.vault.azure.net/keys/backup", "https://login.microsoftonline.com", ""},
		{"https://corp.vault.example.org/keys/backup", "https://login.example.org/", ""},
		{"https://corp.vault.example.org:8443/keys/backup", "https://login.example.org/", ""},

		{"http://corp.vault.azure.net/keys/backup", "", "not a Key Vault URI"},
		{"corp.vault.azure.net/keys/backup", "", "not a Key Vault URI"},
		{"https://corp.vault.azure.net", "", "names no key"},
		{"https://corp.vault.azure.net/keys", "", "names no key"},
		{"https://corp.vault.azure.net/keys/", "", "is not the name of a key"},
		{"https://corp.vault.azure.net/keys/backup/", "", "is not a version"},
		{"https://corp.vault.azure.net/secrets/backup", "", "names no key"},
		{"https://corp.vault.azure.net/keys/back_up", "", "is not the name of a key"},
		{"https://corp.vault.azure.net/keys/" + strings.Repeat("a", 128), "", "is not the name of a key"},
		{"https://corp.vault.azure.net/keys/backup/" + version[1:], "", "is not a version"},
		{"https://corp.vault.azure.net/keys/backup/" + strings.ToUpper(version), "", "is not a version"},
		{"https://corp.vault.azure.net/keys/backup/" + version + "/x", "", "names no key"},
		{"https://corp.vault.azure.net/keys/backup?api-version=7.5", "", "more than host and path"},
		{"https://corp.vault.azure.net/keys/backup#x", "", "more than host and path"},
		{"https://me:pw@corp.vault.azure.net/keys/backup", "", "more than host and path"},
		{"https://corp.vault.azure.net/keys/%62ackup", "", "more than host and path"},
		{"https://corp.vault.azure.net:8443/keys/backup", "", "is not a vault of a known cloud"},
		{"https://vault.azure.net/keys/backup", "", "is not a vault of a known cloud"},
		{"https://a.b.vault.azure.net/keys/backup", "", "is not a vault of a known cloud"},
		{"https://corp.vault.azure.net.evil.example/keys/backup", "", "is not a vault of a known cloud"},
		{"https://corpvault.azure.net/keys/backup", "", "is not a vault of a known cloud"},
		{"https://corp.vault.azure.net/keys/backup", "https://login.chinacloudapi.cn/", "is not a vault of the cloud that"},
		{"https://evil.example/keys/backup", "https://login.microsoftonline.com/", "is not a vault of the cloud that"},
		{"https://evil.example/keys/backup", "https://LOGIN.microsoftonline.com/", "is not a vault of the cloud that"},
		{"https://10.0.0.1/keys/backup", "https://login.example.org/", "a number for a host"},
		{"https://corp..example.org/keys/backup", "https://login.example.org/", "is not a host"},
		{"https://corp.example.org:/keys/backup", "https://login.example.org/", "is not a host"},
		{"https://corp.example.org:99999999/keys/backup", "https://login.example.org/", "is not a host"},
		{"https://" + strings.Repeat("a.", 600) + "/keys/backup", "", "longer than"},
	} {
		asked, err := tryOpen(t, test.uri, test.authority)
		switch {
		case test.fault == "" && (!errors.Is(err, kek.ErrUnreachable) || len(asked.asked) == 0):
			t.Errorf("%s: %v", test.uri, err)
		case test.fault != "" && (!errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), test.fault)):
			t.Errorf("%s: %v, want %q", test.uri, err, test.fault)
		case test.fault != "" && len(asked.asked) > 0:
			t.Errorf("%s: %v was asked", test.uri, asked.asked)
		}
	}
}

// TestCredential: one that is not whole is refused, with the field to mend, before
// anyone is asked.
func TestCredential(t *testing.T) {
	whole := keyvault.Credential{Kind: keyvault.Secret, Tenant: "t", Client: "c", SecretSource: "env:NONE"}
	for fault, change := range map[string]func(*keyvault.Credential){
		"kind \"password\" is not known":  func(c *keyvault.Credential) { c.Kind = "password" },
		"needs tenant":                    func(c *keyvault.Credential) { c.Tenant = "" },
		"needs client":                    func(c *keyvault.Credential) { c.Client = "" },
		"needs secret_source":             func(c *keyvault.Credential) { c.SecretSource = "" },
		"takes no certificate":            func(c *keyvault.Credential) { c.Certificate = "/c.pem" },
		"takes no token_file":             func(c *keyvault.Credential) { c.TokenFile = "/token" },
		"needs certificate":               func(c *keyvault.Credential) { c.Kind, c.SecretSource = keyvault.Certificate, "" },
		"needs token_file":                func(c *keyvault.Credential) { c.Kind, c.SecretSource = keyvault.Workload, "" },
		"takes no tenant":                 func(c *keyvault.Credential) { c.Kind, c.SecretSource = keyvault.Arc, "" },
		"secret_source: not a reference":  func(c *keyvault.Credential) { c.SecretSource = password },
		"tenant is not the id":            func(c *keyvault.Credential) { c.Tenant = "../common" },
		"client is not the id":            func(c *keyvault.Credential) { c.Client = "a b" },
		"authority is not https":          func(c *keyvault.Credential) { c.Authority = "http://login.example.org/" },
		"authority is not https://HOST/:": func(c *keyvault.Credential) { c.Authority = "https://login.example.org/tenant" },
		"ca is not an absolute path":      func(c *keyvault.Credential) { c.CA = "ca.pem" },
		"proxy is not a URL":              func(c *keyvault.Credential) { c.Proxy = "proxy:3128" },
		"proxy has a name or password":    func(c *keyvault.Credential) { c.Proxy = "http://me:" + password + "@proxy:3128" },
	} {
		cred := whole
		change(&cred)
		o := new(offline)
		_, err := keyvault.Open(t.Context(), keyvault.Config{Name: "main", URI: "https://corp.vault.azure.net/keys/backup", Credential: cred, Transport: o})
		if !errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), fault) || len(o.asked) > 0 {
			t.Errorf("want %q, got %v after %d requests", fault, err, len(o.asked))
		}
		if strings.Contains(err.Error(), password) {
			t.Errorf("the error says the password: %v", err)
		}
	}
}
