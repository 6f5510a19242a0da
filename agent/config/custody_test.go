package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
)

const day = config.Duration(24 * time.Hour)

const custody = `keys:
  main: {uri: "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/pin"}
  cloud:
    uri: https://corp.vault.azure.net/keys/backup
    credential: {kind: certificate, tenant: example.onmicrosoft.com, client: 0-1, certificate: /sp.pem, ca: /ca.pem, proxy: "http://p:3128"}
  pinned: {uri: "https://corp.vault.azure.net/keys/backup/0123", credential: {kind: secret, tenant: t, client: c, secret_source: "env:S", authority: "https://login.microsoftonline.us/"}}
  pod: {uri: "https://h.managedhsm.azure.net/keys/k", credential: {kind: workload, tenant: t, client: c, token_file: /token}}
  arc: {uri: "https://corp.vault.azure.net/keys/backup", credential: {client: user-assigned}}
  plain: {uri: "https://corp.vault.azure.net/keys/backup"}
  old: {uri: "file:///kek.pem"}
  paper: {public: /escrow.pem}
custody:
  grace: 3d
  sizes: [3072, 4096]
  rules:
    customer_managed: deny
    hardware: audit
    purge_protection: disabled
    minimum_bits: {bits: 3072, effect: deny}
    escrow: deny
    maximum_age: {days: 730, effect: audit}
audit: {syslog: true, max_size: 1 MiB}
vaults:
  site: {store: "file:///v", keys: [main, cloud, paper], restore_keys: [old], mode: customer-managed}
  soft: {store: "file:///w", keys: [old, paper], mode: software}
`

func defaultCustody() config.Custody {
	return config.Custody{
		Grace: day / 2, Sizes: []int{2048, 3072, 4096},
		Rules: config.Rules{CustomerManaged: "disabled", Hardware: "disabled", PurgeProtection: "deny", Escrow: "audit"},
	}
}

func TestCustody(t *testing.T) {
	got, err := config.Parse("x.yaml", []byte(custody))
	if err != nil {
		t.Fatal(err)
	}
	const public = "https://login.microsoftonline.com/"
	keys := map[string]config.Key{
		"main": {URI: "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/pin"},
		"cloud": {URI: "https://corp.vault.azure.net/keys/backup", Credential: &config.Credential{
			Kind: "certificate", Tenant: "example.onmicrosoft.com", Client: "0-1", Certificate: "/sp.pem", Authority: public, CA: "/ca.pem", Proxy: "http://p:3128",
		}},
		"pinned": {URI: "https://corp.vault.azure.net/keys/backup/0123", Credential: &config.Credential{
			Kind: "secret", Tenant: "t", Client: "c", SecretSource: "env:S", Authority: "https://login.microsoftonline.us/",
		}},
		"pod": {URI: "https://h.managedhsm.azure.net/keys/k", Credential: &config.Credential{
			Kind: "workload", Tenant: "t", Client: "c", TokenFile: "/token", Authority: public,
		}},
		"arc":   {URI: "https://corp.vault.azure.net/keys/backup", Credential: &config.Credential{Kind: "arc", Client: "user-assigned"}},
		"plain": {URI: "https://corp.vault.azure.net/keys/backup", Credential: &config.Credential{Kind: "arc"}},
		"old":   {URI: "file:///kek.pem"},
		"paper": {Public: "/escrow.pem"},
	}
	if !reflect.DeepEqual(got.Keys, keys) {
		t.Errorf("keys: got  %+v\nwant %+v", got.Keys, keys)
	}
	want := config.Custody{
		Grace: 3 * day, Sizes: []int{3072, 4096},
		Rules: config.Rules{
			CustomerManaged: "deny", Hardware: "audit", PurgeProtection: "disabled", Escrow: "deny",
			MinimumBits: &config.Bits{Bits: 3072, Effect: "deny"}, MaximumAge: &config.Age{Days: 730, Effect: "audit"},
		},
	}
	if !reflect.DeepEqual(got.Custody, want) {
		t.Errorf("custody: got  %+v\nwant %+v", got.Custody, want)
	}
	if got.Audit != (config.Audit{Syslog: true, MaxSize: 1 << 20}) {
		t.Errorf("audit: %+v", got.Audit)
	}
	if v := got.Vaults["site"]; v.Mode != "customer-managed" || !reflect.DeepEqual(v.RestoreKeys, []string{"old"}) {
		t.Errorf("vault: %+v", v)
	}
}

func TestCustodyDefaults(t *testing.T) {
	got, err := config.Parse("x", []byte("custody: {sizes: }\nkeys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 'file:///v', keys: [k]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Custody, defaultCustody()) || got.Audit.MaxSize != 16<<20 || got.Vaults["v"].Mode != "" {
		t.Errorf("%+v", got)
	}
	if got.Keys["k"].Credential != nil {
		t.Error("a key in a file has a credential")
	}
}

func TestGrace(t *testing.T) {
	for text, want := range map[string]config.Duration{
		"0": 0, "0s": 0, "90s": day / 960, "5m": day / 288, "12h": day / 2, "1.5h": day / 16, "3 d": 3 * day, "30d": 30 * day,
	} {
		got, err := config.Parse("f", []byte("custody: {grace: "+text+"}"))
		if err != nil || got.Custody.Grace != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"31d": "longer than 30 days", "721h": "longer than 30 days", "10000d": "longer than 30 days",
		"-1h": "not a length of time", "12": "not a length of time", "1h30m": "not a length of time", "h": "not a length of time",
		"1w": "not a length of time", "1e3s": "not a length of time", "''": "not a length of time", "inf": "not a length of time",
		"9999999999999d": "not a length of time",
	} {
		if _, err := config.Parse("f", []byte("custody: {grace: "+text+"}")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestKeyProblems pins what an operator reads about each mistake with keys.
func TestKeyProblems(t *testing.T) {
	const portal = "copy it from the portal: 00000000-0000-0000-0000-000000000000"
	tests := map[string]struct{ text, want string }{
		"uri and public": {
			"keys:\n  k: {uri: 'file:///k', public: /p.pem}\n",
			`f:2:33: keys.k.public: a key has one of uri and public, and this one has uri too; make two keys of it`,
		},
		"public is no path": {
			"keys:\n  k: {public: p.pem}\n",
			`f:2:15: keys.k.public: "p.pem" is not an absolute path; write it from the root`,
		},
		"credential of a file": {
			"keys:\n  k:\n    uri: file:///k\n    credential: {kind: arc}\n  p:\n    public: /p\n    credential: {kind: arc}\n",
			`f:4:5: keys.k.credential: only a key in Key Vault, whose uri begins with https://, needs one; leave it out
f:7:5: keys.p.credential: only a key in Key Vault, whose uri begins with https://, needs one; leave it out`,
		},
		"no key in the path": {
			"keys:\n  a: {uri: 'https://h/'}\n  b: {uri: 'https://h/secrets/k'}\n  c: {uri: 'https://h/keys/k/v/x'}\n  d: {uri: 'https:///keys/k'}\n",
			`f:2:12: keys.a.uri: its path names no key; write https://NAME.vault.azure.net/keys/KEY, and /VERSION to stay with one
f:3:12: keys.b.uri: its path names no key; write https://NAME.vault.azure.net/keys/KEY, and /VERSION to stay with one
f:4:12: keys.c.uri: its path names no key; write https://NAME.vault.azure.net/keys/KEY, and /VERSION to stay with one
f:5:12: keys.d.uri: it is not a URL; write https://NAME.vault.azure.net/keys/KEY`,
		},
		"kind": {
			cloud("kind: password, tenant: t"),
			`f:3:24: keys.k.credential.kind: "password" is not known; use certificate, secret, workload or arc`,
		},
		"missing for a certificate": {
			cloud("kind: certificate"),
			`f:3:5: keys.k.credential.tenant: it is missing; give the id of the directory that the application is in
f:3:5: keys.k.credential.client: it is missing; give the id of the application
f:3:5: keys.k.credential.certificate: it is missing; name a PEM file with certificate and private key`,
		},
		"another kind's": {
			cloud("kind: secret, tenant: t, client: c, certificate: /c, secret_source: 'file:/s', token_file: /t"),
			`f:3:67: keys.k.credential.certificate: a credential of kind secret has none; leave it out, or set kind: certificate
f:3:109: keys.k.credential.token_file: a credential of kind secret has none; leave it out, or set kind: workload`,
		},
		"arc by default": {
			cloud("tenant: t, authority: 'https://a/'"),
			`f:3:26: keys.k.credential.tenant: a credential of kind arc has none; leave it out, or set kind: certificate, secret or workload
f:3:40: keys.k.credential.authority: a credential of kind arc has none; leave it out, or set kind: certificate, secret or workload`,
		},
		"workload without a token": {
			cloud("kind: workload, tenant: t, client: c"),
			`f:3:5: keys.k.credential.token_file: it is missing; name the file that the token is written to`,
		},
		"secret by value": {
			cloud("kind: secret, tenant: t, client: c, secret_source: hunter2"),
			`f:3:69: keys.k.credential.secret_source: the secret itself may not be in the configuration; say where it is: file:/path (mode 0600) or env:NAME`,
		},
		"secret in no absolute path": {
			cloud("kind: secret, tenant: t, client: c, secret_source: 'file:hunter2'"),
			`f:3:69: keys.k.credential.secret_source: the path of the secret is not absolute; write file:/path`,
		},
		"secret as an unknown field": {
			cloud("kind: secret, tenant: t, client: c, secret: hunter2"),
			`f:3:5: keys.k.credential.secret_source: it is missing; say where it is: file:/path (mode 0600) or env:NAME
f:3:54: keys.k.credential: unknown field "secret"; the fields here are kind, tenant, client, certificate, secret_source, token_file, authority, ca, proxy`,
		},
		"ids": {
			cloud("kind: certificate, tenant: 'hunter2 x', client: a/b, certificate: c.pem, ca: ca.pem"),
			`f:3:45: keys.k.credential.tenant: it is not an id; ` + portal + `
f:3:66: keys.k.credential.client: it is not an id; ` + portal + `
f:3:84: keys.k.credential.certificate: "c.pem" is not an absolute path; write it from the root
f:3:95: keys.k.credential.ca: "ca.pem" is not an absolute path; write it from the root`,
		},
		"servers": {
			cloud("kind: workload, tenant: t, client: c, token_file: /t, authority: 'http://a/', proxy: 'http://u:hunter2@p:1'"),
			`f:3:83: keys.k.credential.authority: it is not the URL of a server; write https://HOST
f:3:103: keys.k.credential.proxy: credentials may not be in the configuration; take out what is before the @`,
		},
		"proxy": {
			cloud("proxy: 'p:3128'"),
			`f:3:25: keys.k.credential.proxy: it is not the URL of a server; write http:// or https://HOST`,
		},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
}

// cloud is a key in Key Vault with a credential of these fields.
func cloud(fields string) string {
	return "keys:\n  k: {uri: 'https://h/keys/k',\n    credential: {" + fields + "}}\n"
}

// TestCustodyProblems pins what an operator reads about each mistake with what is
// asked of keys and with the keys of a vault.
func TestCustodyProblems(t *testing.T) {
	keys := "keys: {f: {uri: 'file:///k'}, h: {uri: 'pkcs11:token=t;object=o'}, p: {public: /p}, q: {public: /q}}\n"
	vault := func(fields string) string { return keys + "vaults:\n  v: {store: 'file:///v', " + fields + "}\n" }
	tests := map[string]struct{ text, want string }{
		"escrow alone": {
			vault("keys: [p]"),
			`f:3:34: vaults.v.keys[0]: p is an escrow key, which opens nothing; put a key with a uri before it`,
		},
		"escrow first": {
			vault("keys: [p, h, q]"),
			`f:3:34: vaults.v.keys[0]: p is an escrow key, which opens nothing; put a key with a uri before it`,
		},
		"restore keys": {
			vault("keys: [h, p], restore_keys: [h, p, q, zebra, f, f]"),
			`f:3:56: vaults.v.restore_keys[0]: key h is in keys, and opens the vault anyway; leave it out here
f:3:59: vaults.v.restore_keys[1]: key p is in keys, and opens the vault anyway; leave it out here
f:3:62: vaults.v.restore_keys[2]: q is an escrow key, which opens nothing; put it into keys
f:3:65: vaults.v.restore_keys[3]: there is no key "zebra"; add it to keys, or use one that is there: f, h, p, q
f:3:75: vaults.v.restore_keys[5]: key f is named twice; name it once`,
		},
		"mode": {
			vault("keys: [h], mode: cloud"),
			`f:3:44: vaults.v.mode: "cloud" is not known; use software or customer-managed`,
		},
		"software key in a customer-managed vault": {
			vault("keys: [h, f, p], mode: customer-managed"),
			`f:3:37: vaults.v.keys[1]: f is a software key, and the vault is to be customer-managed; name keys of an HSM or of Key Vault; what this one wrapped stays readable with it in restore_keys`,
		},
		"custody": {
			"custody:\n  grace: 45d\n  sizes: [2048, 1024, 2048]\n",
			`f:2:10: custody.grace: it is longer than 30 days; use 0 to 30d
f:3:17: custody.sizes[1]: RSA keys of 1024 bits are not supported; use 2048, 3072 or 4096
f:3:23: custody.sizes[2]: 2048 is named twice; name it once`,
		},
		"effects": {
			"custody:\n  rules: {customer_managed: yes, hardware: Deny, purge_protection: off, escrow: warn}\n",
			`f:2:29: custody.rules.customer_managed: "yes" is not known; use audit, deny or disabled
f:2:44: custody.rules.hardware: "Deny" is not known; use audit, deny or disabled
f:2:68: custody.rules.purge_protection: "off" is not known; use audit, deny or disabled
f:2:81: custody.rules.escrow: "warn" is not known; use audit, deny or disabled`,
		},
		"rules with numbers": {
			"custody:\n  rules:\n    minimum_bits: {bits: 1024, effect: no}\n    maximum_age: {days: 0}\n",
			`f:3:26: custody.rules.minimum_bits.bits: a minimum of 1024 bits makes no sense; use 2048 to 4096
f:3:40: custody.rules.minimum_bits.effect: "no" is not known; use audit, deny or disabled
f:4:5: custody.rules.maximum_age.effect: it is missing; say audit, deny or disabled
f:4:25: custody.rules.maximum_age.days: an age of 0 days makes no sense; use 1 to 36500`,
		},
		"a number alone": {
			"custody: {rules: {maximum_age: 730}}\n",
			`f:1:32: custody.rules.maximum_age: it must be a mapping; write name: value`,
		},
		"audit": {
			"audit: {max_size: 0, syslog: 1}\n",
			`f:1:19: audit.max_size: a file of 0 bytes makes no sense; use 64 KiB to 1 GiB
f:1:30: audit.syslog: "1" is not a yes or no; write true or false`,
		},
		"audit, too large": {
			"audit: {max_size: 2 GiB}\n",
			`f:1:19: audit.max_size: a file of 2147483648 bytes makes no sense; use 64 KiB to 1 GiB`,
		},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
}
