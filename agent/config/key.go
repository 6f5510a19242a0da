package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// FileKey returns the first key of a vault that is a file and wraps what is new.
func (c *Config) FileKey(v Vault) (name string, ok bool) {
	for _, key := range v.Keys {
		if c.Keys[key].IsFile() {
			return key, true
		}
	}
	return "", false
}

// IsFile tells whether a key is a file.
func (k Key) IsFile() bool { return strings.HasPrefix(k.URI, "file:") }

// Linked is a key that is linked and not in the configuration. In Key Vault it is asked
// for as its neighbours are.
func (c *Config) Linked(uri string) Key {
	key := Key{URI: uri}
	host := key.Host()
	for _, name := range slices.Sorted(maps.Keys(c.Keys)) {
		if k := c.Keys[name]; k.Credential != nil && host != "" && (key.Credential == nil || k.Host() == host) {
			key.Credential = k.Credential
		}
	}
	return key
}

// Host returns the host of a key in Key Vault; "" if it is elsewhere.
func (k Key) Host() string {
	if !strings.HasPrefix(k.URI, "https:") {
		return ""
	}
	u, err := url.Parse(k.URI)
	if err != nil {
		return ""
	}
	return u.Host
}
