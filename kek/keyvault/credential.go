package keyvault

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/secret"
)

// Kind is how a machine outside Azure shows who it is.
type Kind string

// The kinds of credentials.
const (
	Certificate Kind = "certificate" // of a service principal: Tenant, Client, Certificate
	Secret      Kind = "secret"      // of a service principal: Tenant, Client, SecretSource
	Workload    Kind = "workload"    // federated identity: Tenant, Client, TokenFile
	Arc         Kind = "arc"         // managed identity of an Azure Arc machine; Client if it is user-assigned
)

// Credential is how the agent shows Key Vault who it is. It says where secrets are
// and holds none: they are read each time a token is needed, so what is renewed in
// its place is used from the next token on. The zero Credential is Arc.
type Credential struct {
	Kind         Kind
	Tenant       string // id of the directory
	Client       string // id of the application
	Certificate  string // PEM file with certificate and private RSA key
	SecretSource string // file:/path or env:NAME
	TokenFile    string
	Authority    string // URL; "": that of the cloud of the vault
	CA           string // PEM file of authorities to trust beside the system's
	Proxy        string // URL of an HTTP proxy; "": HTTPS_PROXY and NO_PROXY
}

const (
	maxCertificate = 1 << 16
	maxAssertion   = 1 << 16
	tenantShape    = `^[0-9A-Za-z][0-9A-Za-z.-]{0,127}$`
	clientShape    = `^[0-9A-Za-z][0-9A-Za-z-]{0,127}$`
)

// check returns an error, with what to write, unless c is whole.
func (c *Credential) check() error {
	if c.Kind == "" {
		c.Kind = Arc
	}
	fields := []struct {
		name, value string
		needed      []Kind // by others it is not taken
	}{
		{"tenant", c.Tenant, []Kind{Certificate, Secret, Workload}},
		{"certificate", c.Certificate, []Kind{Certificate}},
		{"secret_source", c.SecretSource, []Kind{Secret}},
		{"token_file", c.TokenFile, []Kind{Workload}},
	}
	switch c.Kind {
	case Certificate, Secret, Workload:
		if c.Client == "" {
			return fmt.Errorf("kind %s needs client, the id of the application", c.Kind)
		}
	case Arc:
	default:
		return fmt.Errorf("kind %q is not known: certificate, secret, workload or arc", string(c.Kind))
	}
	for _, f := range fields {
		needed := strings.Contains(fmt.Sprint(f.needed), string(c.Kind))
		switch {
		case needed && f.value == "":
			return fmt.Errorf("kind %s needs %s", c.Kind, f.name)
		case !needed && f.value != "":
			return fmt.Errorf("kind %s takes no %s: leave it out, or set another kind", c.Kind, f.name)
		}
	}
	return c.checkValues()
}

func (c *Credential) checkValues() error {
	for name, path := range map[string]string{"certificate": c.Certificate, "token_file": c.TokenFile, "ca": c.CA} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s is not an absolute path", name)
		}
	}
	if c.Tenant != "" && !matches(tenantShape, c.Tenant) {
		return errors.New("tenant is not the id of a directory")
	}
	if c.Client != "" && !matches(clientShape, c.Client) {
		return errors.New("client is not the id of an application")
	}
	if c.SecretSource != "" {
		if _, err := secret.Parse(c.SecretSource); err != nil {
			return fmt.Errorf("secret_source: %w", err)
		}
	}
	if c.Authority != "" {
		if err := checkAuthority(c.Authority); err != nil {
			return err
		}
	}
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		switch {
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
			return errors.New("proxy is not a URL: http://HOST:PORT")
		case u.User != nil:
			return errors.New("proxy has a name or password in it: leave it out and set HTTPS_PROXY in the service's environment")
		}
	}
	return nil
}

// String says who asks.
func (c Credential) String() string {
	switch {
	case c.Kind == Arc && c.Client == "":
		return "the managed identity of this machine (Azure Arc)"
	case c.Kind == Arc:
		return "managed identity " + c.Client + " of this machine (Azure Arc)"
	}
	return fmt.Sprintf("application %s of tenant %s", c.Client, c.Tenant)
}

// assignee is who gets a role.
func (c Credential) assignee() string {
	if c.Client == "" {
		return "PRINCIPAL-ID-OF-THIS-MACHINE"
	}
	return c.Client
}

// source returns what asks the token endpoint, with the secret as it is now.
func (i *identity) source() (azcore.TokenCredential, error) {
	c := i.credential
	options := azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: i.authority},
		Retry:     policy.RetryOptions{MaxRetries: -1}, // that is the vault's
		Telemetry: policy.TelemetryOptions{ApplicationID: applicationID},
		Transport: i.client,
	}
	switch c.Kind {
	case Certificate:
		text, err := secret.ReadPrivate(c.Certificate, maxCertificate)
		if err != nil {
			return nil, unreadable("the certificate", err)
		}
		defer clear(text)
		certs, key, err := parseCertificate(text)
		if err != nil {
			return nil, unreadable("the certificate", fmt.Errorf("%s: %w", c.Certificate, err))
		}
		i.noteExpiry(certs[0].NotAfter)
		return azidentity.NewClientCertificateCredential(c.Tenant, c.Client, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	case Secret:
		where, err := secret.Parse(c.SecretSource)
		if err != nil {
			return nil, unreadable("the secret", err)
		}
		text, err := where.Read()
		if err != nil {
			return nil, unreadable("the secret", err)
		}
		defer clear(text)
		return azidentity.NewClientSecretCredential(c.Tenant, c.Client, string(text),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	case Workload:
		text, err := secret.ReadPrivate(c.TokenFile, maxAssertion)
		if err != nil {
			return nil, unreadable("the token file", err)
		}
		defer clear(text)
		token := strings.TrimSpace(string(text))
		return azidentity.NewClientAssertionCredential(c.Tenant, c.Client,
			func(context.Context) (string, error) { return token, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	}
	return i.arc(options)
}

// arc asks the agent of Azure Arc on this machine, past every proxy.
func (i *identity) arc(options azcore.ClientOptions) (azcore.TokenCredential, error) {
	if !arcHere() {
		return nil, &fault{class: kek.ErrDenied, says: "this machine has no Azure Arc agent, so it has no identity",
			next: "connect it (azcmagent connect), or set another kind of credential"}
	}
	options.Transport = i.local
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	if i.credential.Client != "" {
		o.ID = azidentity.ClientID(i.credential.Client)
	}
	return azidentity.NewManagedIdentityCredential(o)
}

// arcHere reports whether azidentity will find Azure Arc: otherwise it would ask
// the metadata service of a virtual machine in Azure.
func arcHere() bool {
	if os.Getenv("IDENTITY_ENDPOINT") != "" && os.Getenv("IMDS_ENDPOINT") != "" {
		return true
	}
	agent := "/opt/azcmagent/bin/himds"
	if runtime.GOOS == "windows" {
		agent = filepath.Join(os.Getenv("ProgramFiles"), "AzureConnectedMachineAgent", "himds.exe")
	}
	_, err := os.Stat(agent)
	return err == nil
}

func unreadable(what string, err error) error {
	return &fault{class: kek.ErrDenied, says: what + " to sign in with cannot be read: " + err.Error(),
		next: "put it right: a file needs to be private to the user of the service"}
}

// parseCertificate reads certificates, that of the key first, and an RSA key.
func parseCertificate(text []byte) ([]*x509.Certificate, *rsa.PrivateKey, error) {
	var certs []*x509.Certificate
	var key *rsa.PrivateKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("read certificate: %w", err)
			}
			certs = append(certs, cert)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return nil, nil, errors.New("it has more than one private key")
			}
			var err error
			if key, err = parseKey(block); err != nil {
				return nil, nil, err
			}
		}
	}
	switch {
	case key == nil:
		return nil, nil, errors.New("it has no private key: put certificate and key into one PEM file")
	case len(certs) == 0:
		return nil, nil, errors.New("it has no certificate: put certificate and key into one PEM file")
	}
	for i, cert := range certs {
		if pub, ok := cert.PublicKey.(*rsa.PublicKey); ok && pub.Equal(&key.PublicKey) {
			certs[0], certs[i] = certs[i], certs[0]
			return certs, key, nil
		}
	}
	return nil, nil, errors.New("its private key belongs to none of its certificates")
}

func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	defer clear(block.Bytes)
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("its private key cannot be read")
		}
		return key, nil
	case "PRIVATE KEY":
		any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("its private key cannot be read")
		}
		if key, ok := any.(*rsa.PrivateKey); ok {
			return key, nil
		}
		return nil, errors.New("its private key is not RSA, and Entra takes no other")
	}
	return nil, fmt.Errorf("its private key is of type %q: an unencrypted RSA key is needed", block.Type)
}
