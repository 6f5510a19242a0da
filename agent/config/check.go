package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// check notes everything that the fields' types do not tell.
func check(p *problems, c *Config) {
	checkAgent(p, &c.Agent)
	checkCustody(p, &c.Custody)
	checkAudit(p, &c.Audit)
	for name, k := range c.Keys {
		field := "keys." + name
		checkName(p, field, "a key", name)
		checkKey(p, field, k)
	}
	stores := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Vaults)) {
		v, field := c.Vaults[name], "vaults."+name
		checkName(p, field, "a vault", name)
		checkVault(p, c, field, v)
		if other, taken := stores[v.Store]; taken && v.Store != "" {
			p.add(field+".store", "give each vault its own", "vault %s is there already", other)
		}
		stores[v.Store] = name
	}
	for name, item := range c.Items {
		field := "items." + name
		checkName(p, field, "an item", name)
		checkItem(p, c, field, item)
	}
	checkPolicies(p, c)
	checkNotify(p, c)
}

// checkName refuses names that could not be said on a command line or in a key of
// the store.
func checkName(p *problems, field, what, name string) {
	ok := len(name) >= 1 && len(name) <= 64
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !ok {
		p.add(field, "use a-z, 0-9, . _ and -, a letter or digit first, at most 64", "%q cannot be the name of %s", name, what)
	}
}

// checkAbs refuses a path that depends on where the agent was started.
func checkAbs(p *problems, field, path string) {
	if path != "" && !filepath.IsAbs(path) {
		p.add(field, "write it from the root", "%q is not an absolute path", path)
	}
}

func checkOneOf(p *problems, field, value string, choices ...string) {
	if value != "" && !slices.Contains(choices, value) {
		p.add(field, "use "+oneOf(choices), "%q is not known", value)
	}
}

// oneOf lists choices for people.
func oneOf(choices []string) string {
	last := len(choices) - 1
	if last == 0 {
		return choices[0]
	}
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// required notes a field that is missing or empty.
func required(p *problems, field, value, next string) bool {
	if value == "" {
		p.add(field, next, "it is missing")
	}
	return value != ""
}

func checkVault(p *problems, c *Config, field string, v Vault) {
	if required(p, field+".store", v.Store, `say where it is: store: "file:///srv/backup"`) {
		checkStore(p, field+".store", v.Store)
	}
	checkVaultKeys(p, c, field, v)
	checkOneOf(p, field+".compression", v.Compression, "fastest", "default", "better", "max")
	if v.Lock != nil && !p.bad[field+".lock"] {
		checkLock(p, field+".lock", v.Lock, v.Store)
	}
	checkLimits(p, field+".limits", v.Limits)
	checkPrune(p, field+".prune", v.Prune)
	checkVerify(p, field+".verify", v.Verify)
}

// checkVaultKeys checks which keys a vault names, and whether they can be what it
// wants of them.
func checkVaultKeys(p *problems, c *Config, field string, v Vault) {
	if len(v.Keys) == 0 {
		p.add(field+".keys", "name the keys that open it, from keys", "it has no keys")
	}
	checkNames(p, c, field+".keys", v.Keys)
	checkNames(p, c, field+".restore_keys", v.RestoreKeys)
	if len(v.Keys) > 0 && c.Keys[v.Keys[0]].Public != "" {
		p.add(field+".keys[0]", "put a key with a uri before it", "%s is an escrow key, which opens nothing", v.Keys[0])
	}
	for i, name := range v.RestoreKeys {
		at := fmt.Sprintf("%s.restore_keys[%d]", field, i)
		switch {
		case slices.Contains(v.Keys, name):
			p.add(at, "leave it out here", "key %s is in keys, and opens the vault anyway", name)
		case c.Keys[name].Public != "":
			p.add(at, "put it into keys", "%s is an escrow key, which opens nothing", name)
		}
	}
	checkOneOf(p, field+".mode", v.Mode, ModeSoftware, ModeCustomerManaged)
	if v.Mode != ModeCustomerManaged {
		return
	}
	for i, name := range v.Keys {
		if strings.HasPrefix(c.Keys[name].URI, "file:") {
			p.add(fmt.Sprintf("%s.keys[%d]", field, i), "name keys of an HSM or of Key Vault; what this one wrapped stays readable with it in restore_keys",
				"%s is a software key, and the vault is to be customer-managed", name)
		}
	}
}

// checkNames checks that a vault names keys that there are, each once.
func checkNames(p *problems, c *Config, field string, names []string) {
	seen := map[string]bool{}
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		if _, known := c.Keys[name]; !known {
			p.add(at, suggest(name, "keys", slices.Sorted(maps.Keys(c.Keys))), "there is no key %q", name)
		} else if seen[name] {
			p.add(at, "name it once", "key %s is named twice", name)
		}
		seen[name] = true
	}
}

// checkStore never repeats the URL: somebody may have put credentials into it.
func checkStore(p *problems, field, store string) {
	scheme, rest, _ := strings.Cut(store, ":")
	if scheme != "file" && scheme != "s3" || !strings.HasPrefix(rest, "//") {
		p.add(field, "use file:///path or s3://host/bucket", "it begins with no kind of store that there is")
		return
	}
	where, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(strings.TrimPrefix(where, "//"), "/")
	switch {
	case strings.Contains(authority, "@"),
		secretByValue(query, "access_key", "secret_key", "access-key", "secret-key", "secret", "password", "token"):
		p.add(field, "put them into a file of mode 0600 and say credentials=file:/path", "credentials may not be in the configuration")
	case scheme == "file" && authority != "":
		p.add(field, "write file:///, then the path", "the path of the store is not absolute")
	case scheme == "s3" && authority == "":
		p.add(field, "write s3://host/bucket", "it names no host")
	}
}

// suggest says what to do about a name that does not exist.
func suggest(name, section string, names []string) string {
	switch near := closest(name, names); {
	case near != "":
		return "did you mean " + near + "?"
	case len(names) == 0:
		return "add it to " + section
	case len(names) > 8:
		return "add it to " + section + ", or use one that is there"
	}
	return "add it to " + section + ", or use one that is there: " + strings.Join(names, ", ")
}

func checkItem(p *problems, c *Config, field string, item Item) {
	if required(p, field+".vault", item.Vault, "name the vault that keeps it, from vaults") {
		if _, known := c.Vaults[item.Vault]; !known {
			p.add(field+".vault", suggest(item.Vault, "vaults", slices.Sorted(maps.Keys(c.Vaults))), "there is no vault %q", item.Vault)
		}
	}
	switch {
	case item.Files == nil && item.Stream == nil:
		p.add(field, "add files: {paths: [...]} or stream: {command: [...]}", "it has no source")
	case item.Files != nil && item.Stream != nil:
		p.add(field+".stream", "make two items of it", "an item has one source, and this one has files too")
	}
	if item.Files != nil {
		checkFiles(p, field+".files", item.Files)
	}
	if item.Stream != nil {
		checkStream(p, field+".stream", item.Stream)
	}
}

func checkFiles(p *problems, field string, f *Files) {
	if len(f.Paths) == 0 {
		p.add(field+".paths", "name the files and folders to keep", "it has no paths")
	}
	seen := map[string]bool{}
	for i, path := range f.Paths {
		at := fmt.Sprintf("%s.paths[%d]", field, i)
		clean := filepath.Clean(path)
		switch {
		case !filepath.IsAbs(path):
			p.add(at, "write it from the root", "%q is not an absolute path", path)
		case seen[clean]:
			p.add(at, "name it once", "%s is named twice", clean)
		}
		seen[clean] = true
	}
	for i, path := range f.ExcludeFiles {
		if !filepath.IsAbs(path) {
			p.add(fmt.Sprintf("%s.exclude_files[%d]", field, i), "write it from the root", "%q is not an absolute path", path)
		}
	}
}

func checkStream(p *problems, field string, s *Stream) {
	if len(s.Command) > 0 && !filepath.IsAbs(s.Command[0]) {
		p.add(field+".command[0]", "write it from the root; for a pipeline: [/bin/sh, -c, ...]", "%q is not an absolute path", s.Command[0])
	}
	if s.Name == "." || s.Name == ".." || strings.Contains(s.Name, "/") || len(s.Name) > 255 {
		p.add(field+".name", "use a name without /", "%q cannot be the name of a file", s.Name)
	}
	for i, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			p.add(fmt.Sprintf("%s.env[%d]", field, i), "write NAME=value", "it is not a variable")
		}
	}
	if len(s.Command) == 0 && (len(s.Env) > 0 || s.Dir != "") {
		p.add(field, "add command, or leave env and dir out", "env and dir are a command's, and there is none")
	}
	checkAbs(p, field+".dir", s.Dir)
}
