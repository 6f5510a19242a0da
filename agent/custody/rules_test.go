package custody_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/kek"
)

func fine() kek.Facts {
	return kek.Facts{
		Hardware: kek.Yes, Enabled: kek.Yes, MayUnwrap: kek.Yes, SoftDelete: kek.Yes, PurgeProtection: kek.Yes,
		Created: start().Add(-24 * time.Hour), NotBefore: start().Add(-time.Hour), Expires: start().Add(time.Hour),
	}
}

func key(provider kek.Provider, bits int, change func(*kek.Facts)) custody.KeyFacts {
	f := fine()
	change(&f)
	return custody.KeyFacts{Ref: kek.Ref{Name: "k", Provider: provider, Bits: bits}, Facts: f}
}

func asIs(*kek.Facts)       {}
func nothing(f *kek.Facts)  { *f = kek.Facts{} }
func soft(f *kek.Facts)     { f.Hardware = kek.No }
func unpurged(f *kek.Facts) { f.PurgeProtection = kek.No }
func old(f *kek.Facts)      { f.Created = start().Add(-400 * 24 * time.Hour) }

// TestJudge: each rule, broken, kept and not to be judged.
func TestJudge(t *testing.T) {
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		rules   custody.Rules
		subject custody.Subject
		want    string // rule effect subject: says, a line each
	}{
		"all well by default": {custody.Rules{}, custody.Subject{Vault: "v", Mode: "software", Wrappers: 2, Keys: []custody.KeyFacts{key(kek.Software, 2048, nothing)}}, ""},
		"one key by default":  {custody.Rules{}, custody.Subject{Vault: "v", Mode: "software", Wrappers: 1}, "escrow audit vault v: a single key"},
		"escrow":              {custody.Rules{Escrow: custody.Deny}, custody.Subject{Vault: "v", Wrappers: 1, Escrow: true}, ""},
		"no escrow":           {custody.Rules{Escrow: custody.Deny}, custody.Subject{Vault: "v", Wrappers: 1}, "escrow deny vault v: a single key"},
		"escrow disabled":     {custody.Rules{Escrow: custody.Disabled}, custody.Subject{Vault: "v", Wrappers: 1}, ""},
		"keys alone":          {custody.Rules{Escrow: custody.Deny, CustomerManaged: custody.Deny}, custody.Subject{Mode: "software", Wrappers: 1}, ""},
		"software mode":       {custody.Rules{CustomerManaged: custody.Deny}, custody.Subject{Vault: "v", Mode: "software", Wrappers: 2}, "customer_managed deny vault v: the vault is under software keys"},
		"customer-managed":    {custody.Rules{CustomerManaged: custody.Deny}, custody.Subject{Vault: "v", Mode: "customer-managed", Wrappers: 2}, ""},
		"mode not known":      {custody.Rules{CustomerManaged: custody.Deny}, custody.Subject{Vault: "v", Wrappers: 2}, "customer_managed audit vault v: its mode is not known"},

		"in hardware":         {custody.Rules{Hardware: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, asIs)}}, ""},
		"not in hardware":     {custody.Rules{Hardware: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, soft)}}, "hardware deny key k: its private half is not held in hardware"},
		"a file says nothing": {custody.Rules{Hardware: custody.Audit}, custody.Subject{Keys: []custody.KeyFacts{key(kek.Software, 2048, nothing)}}, "hardware audit key k: its private half is not held in hardware"},
		"hardware not said":   {custody.Rules{Hardware: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, nothing)}}, "hardware audit key k: whether it is held in hardware is not said by the provider"},
		"escrow is offline":   {custody.Rules{Hardware: custody.Deny, PurgeProtection: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.Escrow, 2048, nothing)}}, ""},

		"purge protection off in Key Vault": {custody.Rules{}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, unpurged)}}, "purge_protection deny key k: purge protection is off"},
		"soft delete off":                   {custody.Rules{}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, func(f *kek.Facts) { f.SoftDelete = kek.No })}}, "purge_protection deny key k: soft delete is off"},
		"and audited":                       {custody.Rules{PurgeProtection: custody.Audit}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, unpurged)}}, "purge_protection audit key k: purge protection is off"},
		"and disabled":                      {custody.Rules{PurgeProtection: custody.Disabled}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, unpurged)}}, ""},
		"not said in Key Vault":             {custody.Rules{}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, nothing)}}, ""},
		"elsewhere it means nothing":        {custody.Rules{PurgeProtection: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.Software, 2048, unpurged)}}, ""},
		"not said, and asked for":           {custody.Rules{PurgeProtection: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{key(kek.KeyVault, 2048, nothing)}}, "purge_protection audit key k: whether it can be destroyed at once is not said by the provider"},
		"the provider does not answer": {custody.Rules{PurgeProtection: custody.Deny}, custody.Subject{Keys: []custody.KeyFacts{{Ref: kek.Ref{Name: "k", Provider: kek.KeyVault}, Facts: kek.Facts{PurgeProtection: kek.No}, Err: answer('u')}}},
			"purge_protection audit key k: whether it can be destroyed at once is not said by the provider: key provider does not answer: connection refused"},

		"large enough":   {custody.Rules{MinimumBits: custody.MinimumBits{Bits: 3072, Effect: custody.Deny}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 3072, asIs)}}, ""},
		"too small":      {custody.Rules{MinimumBits: custody.MinimumBits{Bits: 3072, Effect: custody.Deny}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, asIs)}}, "minimum_bits deny key k: it has 2048 bits, fewer than 3072"},
		"size not said":  {custody.Rules{MinimumBits: custody.MinimumBits{Bits: 3072, Effect: custody.Deny}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 0, asIs)}}, "minimum_bits audit key k: how many bits it has is not said"},
		"young enough":   {custody.Rules{MaximumAge: custody.MaximumAge{Age: 365 * day, Effect: custody.Audit}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, asIs)}}, ""},
		"too old":        {custody.Rules{MaximumAge: custody.MaximumAge{Age: 365 * day, Effect: custody.Audit}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, old)}}, "maximum_age audit key k: it was made at 2025-10-18 09:00:00 UTC, 400 days ago: more than 365 days"},
		"age not said":   {custody.Rules{MaximumAge: custody.MaximumAge{Age: 365 * day, Effect: custody.Deny}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, nothing)}}, "maximum_age audit key k: when it was made is not said"},
		"off by default": {custody.Rules{MaximumAge: custody.MaximumAge{Age: time.Hour}, MinimumBits: custody.MinimumBits{Bits: 4096}}, custody.Subject{Keys: []custody.KeyFacts{key(kek.PKCS11, 2048, old)}}, ""},

		"in order": {
			custody.Rules{CustomerManaged: custody.Audit, Hardware: custody.Audit, MinimumBits: custody.MinimumBits{Bits: 4096, Effect: custody.Deny}},
			custody.Subject{Vault: "v", Mode: "software", Wrappers: 1, Keys: []custody.KeyFacts{key(kek.Software, 2048, soft), key(kek.Software, 3072, soft)}},
			"customer_managed audit vault v:\nescrow audit vault v:\nhardware audit key k:\nhardware audit key k:\nminimum_bits deny key k: it has 2048\nminimum_bits deny key k: it has 3072",
		},
	} {
		findings := test.rules.Judge(start(), test.subject)
		want := strings.Split(test.want, "\n")
		if test.want == "" {
			want = nil
		}
		good := len(findings) == len(want)
		for i, f := range findings {
			line := fmt.Sprintf("%s %s %s: %s", f.Rule, f.Effect, f.Subject, f.Says)
			good = good && strings.HasPrefix(line, want[i]) && f.Next != ""
		}
		if !good {
			t.Errorf("%s: findings are %+v, want %q", name, findings, want)
		}
	}
}

// TestUsable: each hard rule, at its edges.
func TestUsable(t *testing.T) {
	for name, test := range map[string]struct {
		rules    custody.Rules
		provider kek.Provider
		bits     int
		change   func(*kek.Facts)
		want     []string // none: usable
	}{
		"all well":              {custody.Rules{}, kek.KeyVault, 3072, asIs, nil},
		"nothing said":          {custody.Rules{}, kek.KeyVault, 2048, nothing, nil},
		"size":                  {custody.Rules{}, kek.PKCS11, 2560, asIs, []string{"2560 bits", "2048, 3072, 4096", "make an RSA key"}},
		"size of the config":    {custody.Rules{Sizes: []int{4096}}, kek.PKCS11, 3072, asIs, []string{"allowed are 4096:"}},
		"disabled":              {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.Enabled = kek.No }, []string{"it is disabled: enable it"}},
		"may not unwrap":        {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.MayUnwrap = kek.No }, []string{"may not unwrap: allow"}},
		"from now":              {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.NotBefore = start() }, nil},
		"not yet":               {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.NotBefore = start().Add(time.Hour) }, []string{"not valid before 2026-11-22 10:00:00 UTC, and it is 2026-11-22 09:00:00 UTC here: wait"}},
		"until now":             {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.Expires = start() }, []string{"expired at 2026-11-22 09:00:00 UTC", "new version", "still opens"}},
		"a second left":         {custody.Rules{}, kek.KeyVault, 2048, func(f *kek.Facts) { f.Expires = start().Add(time.Second) }, nil},
		"purge protection":      {custody.Rules{}, kek.KeyVault, 2048, unpurged, []string{"purge protection is off", "turn on purge protection"}},
		"soft delete":           {custody.Rules{PurgeProtection: custody.Deny}, kek.KeyVault, 2048, func(f *kek.Facts) { f.SoftDelete, f.PurgeProtection = kek.No, kek.No }, []string{"soft delete is off"}},
		"purge audited":         {custody.Rules{PurgeProtection: custody.Audit}, kek.KeyVault, 2048, unpurged, nil},
		"purge disabled":        {custody.Rules{PurgeProtection: custody.Disabled}, kek.KeyVault, 2048, unpurged, nil},
		"purge elsewhere":       {custody.Rules{}, kek.PKCS11, 2048, unpurged, nil},
		"everything is said":    {custody.Rules{}, kek.KeyVault, 1024, func(f *kek.Facts) { f.Enabled, f.MayUnwrap = kek.No, kek.No }, []string{"1024 bits", "disabled", "may not unwrap"}},
		"a key of unknown size": {custody.Rules{}, kek.PKCS11, 0, asIs, []string{"it has 0 bits"}},
	} {
		k := key(test.provider, test.bits, test.change)
		err := custody.Usable(start(), test.rules, k.Ref, k.Facts)
		if (err == nil) != (test.want == nil) || err != nil && !errors.Is(err, kek.ErrUnsuitable) {
			t.Errorf("%s: Usable = %v", name, err)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v does not say %q", name, err, part)
			}
		}
	}
}
