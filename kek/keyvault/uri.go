package keyvault

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

const (
	maxURI  = 1024
	maxHost = 253 // RFC 1035, 2.3.4
)

// address is a key, or a version of it, and who says who may use it.
type address struct {
	host      string // lower case, with the port if it has one
	name      string
	version   string // "": the newest
	hsm       bool   // a Managed HSM
	authority string // URL
}

// azure is one of Microsoft's clouds.
type azure struct {
	authorities []string // hosts of its token endpoints, the usual one first
	vaults      string   // what the names of its Key Vaults end in
	hsms        string   // and those of its Managed HSMs
}

func clouds() []azure {
	return []azure{
		{[]string{"login.microsoftonline.com", "login.microsoft.com", "login.windows.net"}, ".vault.azure.net", ".managedhsm.azure.net"},
		{[]string{"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"}, ".vault.azure.cn", ".managedhsm.azure.cn"},
		{[]string{"login.microsoftonline.us"}, ".vault.usgovcloudapi.net", ".managedhsm.usgovcloudapi.net"},
		{[]string{"login.microsoftonline.de"}, ".vault.microsoftazure.de", ".managedhsm.microsoftazure.de"},
	}
}

// The shapes of names. A key's is in the service's own description of its paths; a
// label is that of RFC 1123, 2.1.
const (
	labelShape   = `^[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?$`
	nameShape    = `^[0-9a-zA-Z-]{1,127}$`
	versionShape = `^[0-9a-f]{32}$`
)

func matches(shape, s string) bool { return regexp.MustCompile(shape).MatchString(s) }

// parseURI reads a key's URI. authority is the configured one, or "".
func parseURI(text, authority string) (address, error) {
	if len(text) > maxURI {
		return address{}, fmt.Errorf("key URI is longer than %d bytes", maxURI)
	}
	rest, ok := strings.CutPrefix(text, "https://")
	if !ok {
		return address{}, errors.New("not a Key Vault URI: want https://NAME.vault.azure.net/keys/KEY")
	}
	if strings.ContainsAny(rest, "?#@%\\") {
		return address{}, errors.New("key URI has more than host and path: want https://NAME.vault.azure.net/keys/KEY")
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 3 || len(parts) > 4 || parts[1] != "keys" {
		return address{}, errors.New("key URI names no key: want https://NAME.vault.azure.net/keys/KEY, or /keys/KEY/VERSION")
	}
	a := address{name: parts[2]}
	if !matches(nameShape, a.name) {
		return address{}, fmt.Errorf("key URI: %q is not the name of a key: letters, digits and dashes only", a.name)
	}
	if len(parts) == 4 {
		if a.version = parts[3]; !matches(versionShape, a.version) {
			return address{}, fmt.Errorf("key URI: %q is not a version: 32 hexadecimal digits in lower case, or leave it out to follow new versions", a.version)
		}
	}
	if err := a.setHost(parts[0]); err != nil {
		return address{}, err
	}
	return a, a.setAuthority(authority)
}

func (a *address) setHost(text string) error {
	host, port, _ := strings.Cut(strings.ToLower(text), ":")
	a.host = host
	if port != "" && port != "443" {
		a.host += ":" + port
	}
	if strings.HasSuffix(text, ":") || len(host) > maxHost || (port != "" && !matches(`^[1-9][0-9]{0,4}$`, port)) {
		return fmt.Errorf("key URI: %q is not a host", text)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return errors.New("key URI has a number for a host: a vault is known by its name")
	}
	for label := range strings.SplitSeq(host, ".") {
		if !matches(labelShape, label) {
			return fmt.Errorf("key URI: %q is not a host", text)
		}
	}
	a.hsm = strings.Contains(host, ".managedhsm.")
	return nil
}

// setAuthority finds the cloud by authority, or by the host if that is "". A token
// for a vault of Microsoft's clouds goes nowhere else.
func (a *address) setAuthority(authority string) error {
	var names []string
	for _, c := range clouds() {
		ours := a.isIn(c)
		if authority == "" && ours {
			a.authority = "https://" + c.authorities[0] + "/"
			return nil
		}
		for _, known := range c.authorities {
			if authorityHost(authority) != known {
				continue
			}
			if !ours {
				return fmt.Errorf("key URI: %s is not a vault of the cloud that %s signs in to: its vaults end in %s or %s", a.host, authority, c.vaults, c.hsms)
			}
			a.authority = authority
			return nil
		}
		names = append(names, c.vaults, c.hsms)
	}
	if authority == "" {
		return fmt.Errorf("key URI: %s is not a vault of a known cloud (%s): correct it, or set credential.authority for a cloud of your own",
			a.host, strings.Join(names, ", "))
	}
	a.authority = authority
	return nil
}

func (a *address) isIn(c azure) bool {
	for _, suffix := range []string{c.vaults, c.hsms} {
		if label, ok := strings.CutSuffix(a.host, suffix); ok && label != "" && !strings.Contains(label, ".") {
			return true
		}
	}
	return false
}

// checkAuthority returns an error unless text is https://HOST[:PORT][/].
func checkAuthority(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return errors.New("authority is not https://HOST/: https://login.microsoftonline.com/, or that of your cloud")
	}
	return nil
}

func authorityHost(authority string) string {
	u, err := url.Parse(authority)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// base is the URL of the vault.
func (a address) base() string { return "https://" + a.host }

// String is the key's URI without a version.
func (a address) String() string { return a.base() + "/keys/" + a.name }

// versioned is the URI of the version.
func (a address) versioned() string { return a.String() + "/" + a.version }

// at returns the address of a version.
func (a address) at(version string) address {
	a.version = version
	return a
}

// label is what the vault is called in az commands.
func (a address) label() string {
	label, _, _ := strings.Cut(a.host, ".")
	return label
}

// parseKID reads the id of a version, or of a key, that the service returned.
func (a address) parseKID(kid string) (address, error) {
	rest, ok := strings.CutPrefix(kid, "https://")
	parts := strings.Split(rest, "/")
	if !ok || len(kid) > maxURI || len(parts) != 4 || parts[1] != "keys" || !matches(versionShape, parts[3]) {
		return address{}, fmt.Errorf("%.200q is not the id of a version of a key", kid)
	}
	host := strings.TrimSuffix(strings.ToLower(parts[0]), ":443")
	if host != a.host || !strings.EqualFold(parts[2], a.name) {
		return address{}, fmt.Errorf("%.200q is the id of another key than %s", kid, a)
	}
	return a.at(parts[3]), nil
}

// az returns a command line of Azure's own tool for this key.
func (a address) az(command string) string {
	vault := "--vault-name"
	if a.hsm {
		vault = "--hsm-name"
	}
	return fmt.Sprintf("az keyvault key %s %s %s --name %s", command, vault, a.label(), a.name)
}

// azVersion is az for one version.
func (a address) azVersion(command string) string {
	return a.az(command) + " --version " + a.version
}
