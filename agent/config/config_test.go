package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/policy"
)

const good = `agent: {state: /s, socket: /s/sock, socket_group: coffer, log: {level: debug, format: json}}
keys:
  main: {uri: "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/pin"}
  file: {uri: "file:///kek.pem"}
vaults:
  site: {store: "s3://h:9000/b/p?region=x", keys: [main, file], id: 1234, compression: better, lock: {days: 30}}
  local: {store: "file:///srv", keys: &all [file]}
items:
  etc:
    vault: local
    files:
      paths: [/etc, "/b c"]
      exclude: &ex
        - "*.tmp"
        - 7
      exclude_files: [/x]
      one_filesystem: true
      skip_cache_dirs: false
      max_file_size: 1.5 GiB
  more: {vault: site, files: {paths: [/x], exclude: *ex}}
  db.1: {vault: site, stream: {command: [/bin/dump, -x], name: db.sql, env: [A=b], dir: /tmp}}
  pipe: {vault: site, stream: }
`

func TestGood(t *testing.T) {
	got, err := config.Parse("x.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Name: "x.yaml",
		Agent: config.Agent{
			State: "/s", Socket: "/s/sock", SocketGroup: "coffer", Log: config.Log{Level: "debug", Format: "json"}, Jobs: 2,
		},
		Keys: map[string]config.Key{
			"main": {URI: "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/pin"},
			"file": {URI: "file:///kek.pem"},
		},
		Custody: defaultCustody(),
		Audit:   config.Audit{MaxSize: 16 << 20},
		Vaults: map[string]config.Vault{
			"site": {
				Store: "s3://h:9000/b/p?region=x", Keys: []string{"main", "file"}, ID: "1234", Compression: "better",
				Lock: &config.Lock{Days: 30, Mode: "governance"}, Prune: defaultPrune(), Verify: defaultVerify(),
			},
			"local": {Store: "file:///srv", Keys: []string{"file"}, Compression: "fastest", Prune: defaultPrune(), Verify: defaultVerify()},
		},
		Items: map[string]config.Item{
			"etc": {Vault: "local", Files: &config.Files{
				Paths: []string{"/etc", "/b c"}, Exclude: []string{"*.tmp", "7"}, ExcludeFiles: []string{"/x"},
				OneFilesystem: true, MaxFileSize: 3 << 29,
			}},
			"more": {Vault: "site", Files: &config.Files{Paths: []string{"/x"}, Exclude: []string{"*.tmp", "7"}}},
			"db.1": {Vault: "site", Stream: &config.Stream{
				Command: []string{"/bin/dump", "-x"}, Name: "db.sql", Env: []string{"A=b"}, Dir: "/tmp",
			}},
			"pipe": {Vault: "site", Stream: &config.Stream{}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestEmpty: an agent with nothing to do starts, so that it can be asked.
func TestEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "{}", "items:\nkeys:\n", "---\n"} {
		got, err := config.Parse("x", []byte(text))
		if err != nil || got.Agent.State != "/var/lib/coffer" || got.Agent.Log.Level != "info" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// TestExample: the file that the packages install is right.
func TestExample(t *testing.T) {
	got, err := config.Load(filepath.Join("..", "..", "packaging", "coffer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Items) != 2 || len(got.Vaults) != 1 {
		t.Errorf("it has %d items and %d vaults", len(got.Items), len(got.Vaults))
	}
}

// TestExampleIsWhole: what is commented out in that file is right too, and every
// field of the structs is in it.
func TestExampleIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "coffer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[config.Config](), reflect.TypeFor[config.Agent](), reflect.TypeFor[config.Log](), reflect.TypeFor[config.Key](),
		reflect.TypeFor[config.Credential](), reflect.TypeFor[config.Custody](), reflect.TypeFor[config.Rules](), reflect.TypeFor[config.Bits](),
		reflect.TypeFor[config.Age](), reflect.TypeFor[config.Audit](),
		reflect.TypeFor[config.Vault](), reflect.TypeFor[config.Lock](), reflect.TypeFor[config.Item](), reflect.TypeFor[config.Files](),
		reflect.TypeFor[config.Roles](), reflect.TypeFor[config.Limits](), reflect.TypeFor[config.Prune](), reflect.TypeFor[config.Verify](),
		reflect.TypeFor[config.Policy](), reflect.TypeFor[config.Retry](), reflect.TypeFor[config.Hooks](), reflect.TypeFor[config.Hook](),
		reflect.TypeFor[config.Retention](), reflect.TypeFor[config.Notify](), reflect.TypeFor[config.Webhook](), reflect.TypeFor[config.SMTP](),
		reflect.TypeFor[config.Ping](),
	} {
		for i := range typ.NumField() {
			if tag := typ.Field(i).Tag.Get("yaml"); tag != "-" && !strings.Contains(string(text), tag+":") {
				t.Errorf("%s of %s is not in the example", tag, typ.Name())
			}
		}
	}
	whole := string(text)
	for _, comment := range []string{"  # cloud:", "  # paper:", "  # site:", "# custody:", "# audit:", "  # roles:", "    # hooks:", "# notify:"} {
		whole = uncomment(t, whole, comment)
	}
	got, err := config.Parse("x", []byte(whole))
	if err != nil {
		t.Fatalf("with what is commented out: %v", err)
	}
	if got.Vaults["site"].Lock.Days != 30 || got.Keys["cloud"].Credential.Kind != "certificate" || got.Keys["paper"].Public == "" ||
		got.Custody.Rules.MaximumAge.Days != 730 || got.Audit.MaxSize != 16<<20 || got.Agent.Roles.KeyAdmin[0] != "security" ||
		got.Agent.Metrics != "127.0.0.1:9464" || got.Policies["nightly"].Hooks.Post == nil || len(got.Notify) != 4 || got.Vaults["site"].Limits.Upload != 20<<20 {
		t.Errorf("with what is commented out: %+v", got)
	}
}

// uncomment takes the # from the block of lines that begins so.
func uncomment(t *testing.T, text, begin string) string {
	t.Helper()
	before, block, ok := strings.Cut(text, "\n"+begin)
	if !ok {
		t.Fatalf("the example has no %q", begin)
	}
	indent := strings.TrimSuffix(begin[:strings.Index(begin, "#")+2], "# ")
	lines := strings.Split(begin+block, "\n")
	for i, line := range lines {
		rest, ok := strings.CutPrefix(line, indent+"# ")
		if !ok {
			break
		}
		lines[i] = indent + rest
	}
	return before + "\n" + strings.Join(lines, "\n")
}

// TestProblems pins what an operator reads about each mistake, to the letter.
func TestProblems(t *testing.T) {
	base := "keys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 'file:///v', keys: [k]}}\n"
	tests := map[string]struct{ text, want string }{
		"unknown section": {
			"agnet: {}\n",
			`f:1:1: unknown field "agnet"; did you mean agent?`,
		},
		"unknown field": {
			base + "items:\n  etc:\n    vault: v\n    files:\n      paths: [/etc]\n      excludes: [x]\n",
			`f:8:7: items.etc.files: unknown field "excludes"; did you mean exclude?`,
		},
		"unknown field, nothing near": {
			"agent:\n  colour: red\n",
			`f:2:3: agent: unknown field "colour"; the fields here are state, socket, socket_group, log, roles, jobs, metrics`,
		},
		"several at once": {
			"agent: {state: var, log: {level: loud}}\nkeys: {K: {uri: 'file:///k'}}\nitems: {a: {vault: x}}\n",
			`f:1:16: agent.state: "var" is not an absolute path; write it from the root
f:1:34: agent.log.level: "loud" is not known; use debug, info, warn or error
f:2:8: keys.K: "K" cannot be the name of a key; use a-z, 0-9, . _ and -, a letter or digit first, at most 64
f:3:9: items.a: it has no source; add files: {paths: [...]} or stream: {command: [...]}
f:3:20: items.a.vault: there is no vault "x"; add it to vaults`,
		},
		"two sources": {
			base + "items:\n  a:\n    vault: v\n    files: {paths: [/]}\n    stream: {}\n",
			`f:7:5: items.a.stream: an item has one source, and this one has files too; make two items of it`,
		},
		"unknown key": {
			"keys: {main: {uri: 'file:///k'}}\nvaults:\n  v:\n    store: file:///v\n    keys: [main, mian]\n",
			`f:5:18: vaults.v.keys[1]: there is no key "mian"; did you mean main?`,
		},
		"key named twice": {
			"keys: {main: {uri: 'file:///k'}}\nvaults: {v: {store: 'file:///v', keys: [main, main]}}\n",
			`f:2:47: vaults.v.keys[1]: key main is named twice; name it once`,
		},
		"missing": {
			"keys:\n  k: {}\nvaults:\n  v: {}\nitems:\n  i: {files: {}}\n",
			`f:2:3: keys.k.uri: it is missing; say where the key is: uri: "file:///etc/coffer/kek.pem"
f:4:3: vaults.v.store: it is missing; say where it is: store: "file:///srv/backup"
f:4:3: vaults.v.keys: it has no keys; name the keys that open it, from keys
f:6:3: items.i.vault: it is missing; name the vault that keeps it, from vaults
f:6:7: items.i.files.paths: it has no paths; name the files and folders to keep`,
		},
		"pin by value": {
			"keys: {k: {uri: 'pkcs11:token=t?module-path=/m&pin-value=hunter2'}}\n",
			`f:1:17: keys.k.uri: a PIN or passphrase may not be in the configuration; say where it is instead: pin-source=file:/etc/coffer/pin, or passphrase-source=file:/etc/coffer/pass`,
		},
		"pin by value, encoded": {
			"keys: {k: {uri: 'pkcs11:token=t?%50in-value=hunter2'}}\n",
			`f:1:17: keys.k.uri: a PIN or passphrase may not be in the configuration; say where it is instead: pin-source=file:/etc/coffer/pin, or passphrase-source=file:/etc/coffer/pass`,
		},
		"userinfo in a store": {
			"keys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 's3://id:hunter2@h/b', keys: [k]}}\n",
			`f:2:21: vaults.v.store: credentials may not be in the configuration; put them into a file of mode 0600 and say credentials=file:/path`,
		},
		"secret in a store's query": {
			"keys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 's3://h/b?secret_key=hunter2', keys: [k]}}\n",
			`f:2:21: vaults.v.store: credentials may not be in the configuration; put them into a file of mode 0600 and say credentials=file:/path`,
		},
		"userinfo in a key": {
			"keys: {k: {uri: 'https://u:hunter2@h/keys/k'}}\n",
			`f:1:17: keys.k.uri: credentials may not be in the configuration; take out what is before the @`,
		},
		"strange kinds": {
			"keys: {k: {uri: 'gpg:hunter2'}}\nvaults: {v: {store: 'ftp://hunter2', keys: [k]}, w: {store: 'file://srv', keys: [k]}}\n",
			`f:1:17: keys.k.uri: it begins with no kind of key that there is; use pkcs11:, file:/// or https://
f:2:21: vaults.v.store: it begins with no kind of store that there is; use file:///path or s3://host/bucket
f:2:61: vaults.w.store: the path of the store is not absolute; write file:///, then the path`,
		},
		"one store for two vaults": {
			"keys: {k: {uri: 'file:///k'}}\nvaults:\n  a: {store: 'file:///v', keys: [k]}\n  b: {store: 'file:///v', keys: [k]}\n",
			`f:4:14: vaults.b.store: vault a is there already; give each vault its own`,
		},
		"lock": {
			"keys: {k: {uri: 'file:///k'}}\nvaults:\n  a: {store: 'file:///v', keys: [k], lock: {days: 0, mode: hard}}\n",
			`f:3:51: vaults.a.lock.days: a lock of 0 days makes no sense; use 1 to 36500
f:3:60: vaults.a.lock.mode: "hard" is not known; use governance or compliance`,
		},
		"paths": {
			base + "items: {a: {vault: v, files: {paths: [etc, /x, /x/], exclude_files: [e]}}}\n",
			`f:3:39: items.a.files.paths[0]: "etc" is not an absolute path; write it from the root
f:3:48: items.a.files.paths[2]: /x is named twice; name it once
f:3:70: items.a.files.exclude_files[0]: "e" is not an absolute path; write it from the root`,
		},
		"types": {
			base + "items:\n  a:\n    vault: [v]\n    files:\n      paths: /etc\n      one_filesystem: yes\n      max_file_size: 10 GX\n",
			`f:5:12: items.a.vault: it must be a single value
f:7:14: items.a.files.paths: it must be a list; write [a, b], or one a line behind a dash
f:8:23: items.a.files.one_filesystem: "yes" is not a yes or no; write true or false
f:9:22: items.a.files.max_file_size: "10 GX" is not a size; write it like "10 GiB"`,
		},
		"stream": {
			base + "items:\n  a: {vault: v, stream: {command: [dump], name: a/b, env: [x]}}\n  b: {vault: v, stream: {dir: /x}}\n",
			`f:4:36: items.a.stream.command[0]: "dump" is not an absolute path; write it from the root; for a pipeline: [/bin/sh, -c, ...]
f:4:49: items.a.stream.name: "a/b" cannot be the name of a file; use a name without /
f:4:60: items.a.stream.env[0]: it is not a variable; write NAME=value
f:5:17: items.b.stream: env and dir are a command's, and there is none; add command, or leave env and dir out`,
		},
		"no value":        {"agent:\n  state:\n", `f:2:3: agent.state: it has no value; give it one, or leave the field out`},
		"duplicate":       {"agent: {}\nagent: {}\n", `f:2:1: not YAML: mapping key "agent" already defined at [1:1]; put it right first; what comes after it was not read`},
		"not YAML":        {"agent: [1\n", `f:1:8: not YAML: sequence end token ']' not found; put it right first; what comes after it was not read`},
		"two documents":   {"agent: {}\n---\nkeys: {}\n", `f:3:1: there is a second document in the file; keep one, without ---`},
		"not a mapping":   {"- a\n", `f:1:1: it must be a mapping; write name: value`},
		"merge":           {"agent: &a {}\nkeys:\n  <<: *a\n", `f:3:3: keys: merging with << is not supported; write the fields out`},
		"unknown anchor":  {"agent: *a\n", `f:1:8: agent: there is no anchor &a before this`},
		"tag":             {"agent: !!map {}\n", `f:1:8: agent: the tag !!map has no meaning here; leave it out`},
		"deep":            {"a: " + strings.Repeat("[", 100), `f:1:68: brackets nest deeper than 64`},
		"not there":       {"encryption: {}\n", `f:1:1: unknown field "encryption"; the fields here are agent, keys, custody, audit, vaults, items, policies, notify`},
		"name of an item": {base + "items: {-x: {vault: v, stream: {}}}\n", `f:3:9: items.-x: "-x" cannot be the name of an item; use a-z, 0-9, . _ and -, a letter or digit first, at most 64`},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
}

// wantProblems pins what is said of a text that is wrong, which has hunter2 where
// it has a secret.
func wantProblems(t *testing.T, name, text, want string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		_, err := config.Parse("f", []byte(text))
		var ce *config.Error
		if !errors.As(err, &ce) {
			t.Fatalf("got %v", err)
		}
		if err.Error() != want {
			t.Errorf("got\n%s\nwant\n%s", err, want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Error("the error shows a secret")
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "4096": 4096, "1 KiB": 1024, "1K": 1024, "10 GiB": 10 << 30, "10GiB": 10 << 30, "2TB": 2e12, "1.5 MiB": 3 << 19, "7 B": 7,
	} {
		cfg, err := config.Parse("f", []byte("keys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 'file:///v', keys: [k]}}\nitems: {a: {vault: v, files: {paths: [/], max_file_size: "+text+"}}}"))
		if err != nil || cfg.Items["a"].Files.MaxFileSize != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"-1", "x", "1 XB", "1e9", "0x10", "10000 PiB", "''", "GiB", ".", "1 K B", "1_000", "inf"} {
		_, err := config.Parse("f", []byte("items: {a: {files: {max_file_size: "+text+"}}}"))
		if err == nil || !strings.Contains(err.Error(), "is not a size") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, []byte(strings.Repeat("# x\n", 2<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

// FuzzParse: whatever the text, there is either a configuration that keeps its
// promises or an error that says where.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(custody)
	f.Add(policies)
	for _, s := range []string{"", "a: b", "agent: &x [*x]", "<<: *a", "? a\n: b", "- - -", "\t", "a: |\n b", "!!x y", "--- \n---", "\"\\x00\": 1", "agent: {state: \"/\\0\"}",
		"custody: {grace: 1e9d, sizes: [], rules: {minimum_bits: , maximum_age: {}}}", "keys: {k: {uri: \"https://h/keys/k\", credential: {proxy: \"http://%\"}}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := config.Parse("f", []byte(text))
		if err != nil {
			var ce *config.Error
			if !errors.As(err, &ce) || len(ce.Problems) == 0 {
				t.Fatalf("%q: %v", text, err)
			}
			for _, p := range ce.Problems {
				if p.Message == "" || p.Line > strings.Count(strings.ReplaceAll(text, "\r", "\n"), "\n")+1 {
					t.Fatalf("%q: %+v", text, p)
				}
			}
			return
		}
		for name, item := range cfg.Items {
			if _, ok := cfg.Vaults[item.Vault]; !ok || (item.Files == nil) == (item.Stream == nil) || name == "" {
				t.Fatalf("%q: item %q is %+v", text, name, item)
			}
		}
		for _, v := range cfg.Vaults {
			if len(v.Keys) == 0 || v.Store == "" || cfg.Keys[v.Keys[0]].Public != "" {
				t.Fatalf("%q: vault %+v", text, v)
			}
		}
		for name, p := range cfg.Policies {
			if len(p.Items) == 0 || p.Tries().Check() != nil {
				t.Fatalf("%q: policy %q is %+v", text, name, p)
			}
			if _, err := policy.ParseSchedule(p.Schedule, policy.Options{}); err != nil && p.Schedule != "" {
				t.Fatalf("%q: policy %q: %v", text, name, err)
			}
			if r, ok := p.Keeps(); ok && r.Check(policy.Allow{}) != nil {
				t.Fatalf("%q: policy %q keeps nothing", text, name)
			}
		}
		for name, k := range cfg.Keys {
			if (k.URI == "") == (k.Public == "") || k.Credential != nil && !strings.HasPrefix(k.URI, "https:") {
				t.Fatalf("%q: key %q is %+v", text, name, k)
			}
		}
		if c := cfg.Custody; c.Grace < 0 || c.Grace > 30*day || len(c.Sizes) == 0 || cfg.Audit.MaxSize < 64<<10 {
			t.Fatalf("%q: custody %+v, audit %+v", text, c, cfg.Audit)
		}
	})
}
