package config

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

func checkKey(p *problems, field string, k Key) {
	switch {
	case k.URI != "" && k.Public != "":
		p.add(field+".public", "make two keys of it", "a key has one of uri and public, and this one has uri too")
	case k.Public != "":
		checkAbs(p, field+".public", k.Public)
	default:
		checkURI(p, field+".uri", k.URI)
	}
	switch {
	case k.Credential == nil:
	case k.keyVault(), k.URI == "" && k.Public == "":
		checkCredential(p, field+".credential", k.Credential)
	default:
		p.add(field+".credential", "leave it out", "only a key in Key Vault, whose uri begins with https://, needs one")
	}
}

// checkURI never repeats the URI: somebody may have put the PIN into it.
func checkURI(p *problems, field, uri string) {
	if !required(p, field, uri, `say where the key is: uri: "file:///etc/coffer/kek.pem"`) {
		return
	}
	scheme, rest, _ := strings.Cut(uri, ":")
	switch scheme {
	case "pkcs11", "file", "https":
	default:
		p.add(field, "use pkcs11:, file:/// or https://", "it begins with no kind of key that there is")
		return
	}
	_, query, _ := strings.Cut(rest, "?")
	if secretByValue(query, "pin-value", "pin", "passphrase", "password", "passphrase-value") {
		p.add(field, "say where it is instead: pin-source=file:/etc/coffer/pin, or passphrase-source=file:/etc/coffer/pass", "a PIN or passphrase may not be in the configuration")
	}
	switch {
	case scheme == "https":
		checkHTTPS(p, field, uri)
	case scheme == "file" && !strings.HasPrefix(rest, "///"):
		p.add(field, "write file:///, then the path", "the path of the key is not absolute")
	}
}

// secretByValue tells whether a query has one of the attributes.
func secretByValue(query string, names ...string) bool {
	for _, pair := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		if slices.Contains(names, strings.ToLower(name)) {
			return true
		}
	}
	return false
}

func checkHTTPS(p *problems, field, uri string) {
	const form = "write https://NAME.vault.azure.net/keys/KEY"
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		p.add(field, form, "it is not a URL")
		return
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch {
	case u.User != nil:
		p.add(field, "take out what is before the @", "credentials may not be in the configuration")
	case parts[0] != "keys" || len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, ""):
		p.add(field, form+", and /VERSION to stay with one", "its path names no key")
	}
}

// credentialField is one field of a Credential, and the kinds that it belongs to.
type credentialField struct {
	name, value string
	needed      []string // kinds that cannot do without it
	taken       []string // kinds that may have it besides; nil and not needed: all
	next        string   // what to do where it is missing
}

func fieldsOf(c *Credential) []credentialField {
	principal := []string{KindCertificate, KindSecret, KindWorkload}
	return []credentialField{
		{"tenant", c.Tenant, principal, nil, "give the id of the directory that the application is in"},
		{"client", c.Client, principal, []string{KindArc}, "give the id of the application"},
		{"certificate", c.Certificate, []string{KindCertificate}, nil, "name a PEM file with certificate and private key"},
		{"secret_source", c.SecretSource, []string{KindSecret}, nil, secretForm},
		{"token_file", c.TokenFile, []string{KindWorkload}, nil, "name the file that the token is written to"},
		{"authority", c.Authority, nil, principal, ""},
	}
}

const secretForm = "say where it is: file:/path (mode 0600) or env:NAME"

// checkCredential never repeats a value that may be a secret in the wrong place.
func checkCredential(p *problems, field string, c *Credential) {
	kinds := []string{KindCertificate, KindSecret, KindWorkload, KindArc}
	checkOneOf(p, field+".kind", c.Kind, kinds...)
	kind := or(c.Kind, KindArc)
	if slices.Contains(kinds, kind) {
		for _, f := range fieldsOf(c) {
			at := field + "." + f.name
			switch {
			case slices.Contains(f.needed, kind):
				required(p, at, f.value, f.next)
			case f.value != "" && !slices.Contains(f.taken, kind):
				p.add(at, "leave it out, or set kind: "+oneOf(slices.Concat(f.needed, f.taken)), "a credential of kind %s has none", kind)
			}
		}
	}
	checkID(p, field+".tenant", c.Tenant)
	checkID(p, field+".client", c.Client)
	checkAbs(p, field+".certificate", c.Certificate)
	checkAbs(p, field+".token_file", c.TokenFile)
	checkAbs(p, field+".ca", c.CA)
	checkSecretSource(p, field+".secret_source", c.SecretSource)
	checkServer(p, field+".authority", c.Authority, "https")
	checkServer(p, field+".proxy", c.Proxy, "http", "https")
}

// checkID refuses what is no id of a directory or application: those are letters,
// digits, "-" and, in the domain of a directory, ".".
func checkID(p *problems, field, id string) {
	odd := strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
	if odd >= 0 || len(id) > 255 {
		p.add(field, "copy it from the portal: 00000000-0000-0000-0000-000000000000", "it is not an id")
	}
}

func checkSecretSource(p *problems, field, source string) {
	kind, place, _ := strings.Cut(source, ":")
	switch {
	case source == "":
	case kind == "file" && filepath.IsAbs(place), kind == "env" && place != "" && !strings.ContainsAny(place, "= "):
	case kind == "file":
		p.add(field, "write file:/path", "the path of the secret is not absolute")
	default:
		p.add(field, secretForm, "the secret itself may not be in the configuration")
	}
}

// checkServer checks the URL of a server, of one of the schemes.
func checkServer(p *problems, field, server string, schemes ...string) {
	if server == "" {
		return
	}
	u, err := url.Parse(server)
	switch {
	case err == nil && u.User != nil:
		p.add(field, "take out what is before the @", "credentials may not be in the configuration")
	case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
		p.add(field, "write "+strings.Join(schemes, ":// or ")+"://HOST", "it is not the URL of a server")
	}
}
