package ruling_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/mem"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// described is a key of whose provider a test says what it says.
type described struct {
	*software.Key
	facts kek.Facts
	err   error
}

func (d described) Inspect(context.Context) (kek.Facts, error) { return d.facts, d.err }

// bench is a judge of a vault site with the keys main and spare, and of a vault away with
// main alone.
type bench struct {
	*ruling.Judge
	settings *config.Config
	ring     *keyring.Keyring
	keys     map[string]described
	silent   map[string]error // keys that cannot be opened
	lines    []audit.Event
	full     error // why the audit log takes no line
}

func furnished(t *testing.T) *bench {
	t.Helper()
	b := &bench{keys: make(map[string]described), silent: make(map[string]error), settings: &config.Config{Keys: make(map[string]config.Key),
		Vaults: map[string]config.Vault{"site": {Keys: []string{"main", "spare"}}, "away": {Keys: []string{"main"}}}}}
	for _, name := range []string{"main", "spare", "idle"} {
		uri := "file://" + filepath.Join(t.TempDir(), name+".pem")
		if err := software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048}); err != nil {
			t.Fatal(err)
		}
		k, err := software.Open(t.Context(), name, uri)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		b.settings.Keys[name] = config.Key{URI: uri}
		b.keys[name] = described{Key: k, facts: kek.Facts{Hardware: kek.Yes, Enabled: kek.Yes, MayUnwrap: kek.Yes, Created: now.Add(-24 * time.Hour)}}
	}
	folder, err := state.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(folder.Close)
	record := func(_ context.Context, e audit.Event) error {
		b.lines = append(b.lines, e)
		return b.full
	}
	clock := func() time.Time { return now }
	b.ring = keyring.New(keyring.Config{Keys: b.settings.Keys, Memory: folder, Clock: clock, Log: slog.New(slog.DiscardHandler),
		Record: func(context.Context, audit.Event) error { return nil },
		Open: func(_ context.Context, name string, _ config.Key) ([]kek.Key, error) {
			if err := b.silent[name]; err != nil {
				return nil, err
			}
			return []kek.Key{b.keys[name]}, nil
		}})
	b.Judge = ruling.New(ruling.Config{Settings: func() *config.Config { return b.settings }, Keys: b.ring, Record: record, Clock: clock})
	return b
}

// recorded are the kinds, rules and subjects of the lines in the audit log.
func (b *bench) recorded() string {
	var out []string
	for _, e := range b.lines {
		out = append(out, string(e.Kind)+" "+e.Fields["rule"]+" "+e.Fields["subject"])
	}
	return strings.Join(out, ", ")
}

// TestVault: what the rules deny is refused, what they note is returned, and both are
// recorded.
func TestVault(t *testing.T) {
	for _, tt := range []struct {
		name, vault string
		set         func(*bench)
		noted       string // in order
		denied      string
		recorded    string
	}{
		{"well", "site", func(*bench) {}, "", "", ""},
		{"a single key", "away", func(*bench) {}, "vault away: a single key opens the vault", "", "rule.audited escrow vault away"},
		{"a single key, which is forbidden", "away", func(b *bench) { b.settings.Custody.Rules.Escrow = "deny" },
			"", "rule escrow forbids it for vault away", "rule.denied escrow vault away"},
		{"one of two does not answer", "site", func(b *bench) { b.silent["spare"] = kek.ErrUnreachable },
			"vault site: a single key opens the vault", "", "rule.audited escrow vault site"},
		{"software keys", "site", func(b *bench) { b.settings.Custody.Rules.Hardware = "audit" },
			"key main: its private half is not held in hardware|key spare: its private half is not held in hardware", "",
			"rule.audited hardware key main, rule.audited hardware key spare"},
		{"a short key, noted and denied", "site", func(b *bench) {
			b.settings.Custody.Rules.MinimumBits = &config.Bits{Bits: 3072, Effect: "deny"}
			b.settings.Custody.Rules.Hardware = "audit"
		}, "key main: its private|key spare: its private", "rule minimum_bits forbids it for key main",
			"rule.audited hardware key main, rule.audited hardware key spare, rule.denied minimum_bits key main, rule.denied minimum_bits key spare"},
		{"an old key", "away", func(b *bench) {
			b.settings.Custody.Rules.Escrow = "disabled"
			b.settings.Custody.Rules.MaximumAge = &config.Age{Days: 1, Effect: "deny"}
			d := b.keys["main"]
			d.facts.Created = now.Add(-49 * time.Hour)
			b.keys["main"] = d
		}, "", "rule maximum_age forbids it for key main: it was made at", "rule.denied maximum_age key main"},
		{"a disabled key", "site", func(b *bench) {
			d := b.keys["spare"]
			d.facts.Enabled = kek.No
			b.keys["spare"] = d
		}, "", "key spare: ", "rule.denied usable key spare"},
		{"a provider that denies", "site", func(b *bench) {
			d := b.keys["main"]
			d.err = kek.ErrDenied
			b.keys["main"] = d
		}, "", "key main: ", "rule.denied usable key main"},
		{"a provider that is silent", "site", func(b *bench) {
			d := b.keys["main"]
			d.err = kek.ErrUnreachable
			b.keys["main"] = d
		}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			tt.set(b)
			noted, err := b.Vault(t.Context(), tt.vault, catalog.SoftwareKeys)
			var want []string
			if tt.noted != "" {
				want = strings.Split(tt.noted, "|")
			}
			if !slices.EqualFunc(noted, want, strings.HasPrefix) {
				t.Errorf("noted %q, want %q", noted, want)
			}
			if (err != nil) != (tt.denied != "") || err != nil && !strings.Contains(err.Error(), tt.denied) {
				t.Errorf("denied %v, want %q", err, tt.denied)
			}
			if wire := control.AsError(err); err != nil && wire.Next == "" {
				t.Errorf("no next step: %v", err)
			}
			if got := b.recorded(); got != tt.recorded {
				t.Errorf("recorded %q, want %q", got, tt.recorded)
			}
		})
	}
	b := furnished(t)
	b.full = errors.New("disk is full")
	if _, err := b.Vault(t.Context(), "away", catalog.SoftwareKeys); !errors.Is(err, b.full) {
		t.Errorf("what cannot be recorded is let pass: %v", err)
	}
}

// TestKey: what is said of a key is in the order of the rules, each once however many
// vaults use it; of one that none uses nothing is said, and nothing is recorded.
func TestKey(t *testing.T) {
	b := furnished(t)
	b.settings.Custody.Rules.Hardware = "audit"
	b.settings.Custody.Rules.MinimumBits = &config.Bits{Bits: 4096, Effect: "deny"}
	b.settings.Custody.Rules.MaximumAge = &config.Age{Days: 365, Effect: "audit"}
	for key, want := range map[string][]string{"main": {"audit hardware key main", "deny minimum_bits key main"}, "spare": {"audit hardware key spare", "deny minimum_bits key spare"}, "idle": nil} {
		var got []string
		for _, f := range b.Key(t.Context(), key) {
			got = append(got, string(f.Effect)+" "+f.Rule+" "+f.Subject)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %s: %q, want %q", key, got, want)
		}
	}
	if len(b.lines) > 0 {
		t.Errorf("recorded %s", b.recorded())
	}
}

// TestMayWrap: a backup is refused for the sake of the first key, and told of the others.
func TestMayWrap(t *testing.T) {
	for _, tt := range []struct {
		expired       string
		noted, denied string
		recorded      string
	}{
		{"", "", "", ""},
		{"spare", "key spare: ", "", ""},
		{"main", "", "key main: ", "rule.denied usable key main"},
	} {
		b := furnished(t)
		if d, ok := b.keys[tt.expired]; ok {
			d.facts.Expires = now
			b.keys[tt.expired] = d
		}
		v, err := catalog.Create(t.Context(), mem.New(mem.Config{}), catalog.CreateOptions{Mode: catalog.SoftwareKeys, Now: now,
			Ring: kek.NewRing(b.keys["main"])})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		noted, err := b.MayWrap(t.Context(), &vault.Vault{Name: "site", Catalog: v})
		if got := strings.Join(noted, "|"); !strings.HasPrefix(got, tt.noted) || (got == "") != (tt.noted == "") {
			t.Errorf("%s expired: noted %q, want %q", tt.expired, got, tt.noted)
		}
		if (err != nil) != (tt.denied != "") || err != nil && (!strings.Contains(err.Error(), tt.denied) || control.AsError(err).Code != control.CodeForbidden) {
			t.Errorf("%s expired: denied %v, want %q", tt.expired, err, tt.denied)
		}
		if got := b.recorded(); got != tt.recorded {
			t.Errorf("%s expired: recorded %q, want %q", tt.expired, got, tt.recorded)
		}
	}
}

// TestVersion: a new version is refused for what is denied; what is only noted is said
// when the vault is looked at.
func TestVersion(t *testing.T) {
	b := furnished(t)
	b.settings.Custody.Rules.Hardware = "audit"
	if err := b.Version(t.Context(), "site", b.keys["spare"]); err != nil || len(b.lines) > 0 {
		t.Errorf("%v, recorded %s", err, b.recorded())
	}
	b.settings.Custody.Rules.Hardware = "deny"
	if err := b.Version(t.Context(), "site", b.keys["spare"]); control.CodeOf(err) != control.CodeForbidden || b.recorded() != "rule.denied hardware key spare" {
		t.Errorf("%v, recorded %s", err, b.recorded())
	}
}

// TestMode: a vault is one of software keys if it says so, or if one of its keys is a file.
func TestMode(t *testing.T) {
	settings := &config.Config{Keys: map[string]config.Key{"file": {URI: "file:///kek.pem"}, "hsm": {URI: "pkcs11:token=backup;object=kek"}}}
	for _, tt := range []struct {
		vault config.Vault
		want  catalog.Mode
	}{
		{config.Vault{Keys: []string{"hsm"}}, catalog.CustomerManaged},
		{config.Vault{Keys: []string{"hsm", "file"}}, catalog.SoftwareKeys},
		{config.Vault{Keys: []string{"hsm"}, Mode: "software"}, catalog.SoftwareKeys},
		{config.Vault{Keys: []string{"hsm"}, Mode: "customer-managed"}, catalog.CustomerManaged},
	} {
		if got := ruling.Mode(settings, tt.vault); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.vault, got, tt.want)
		}
	}
}
