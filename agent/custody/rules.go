package custody

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// Effect is what a broken rule leads to.
type Effect string

// The effects. "" is the default of the rule, which is Disabled where nothing else
// is said.
const (
	Audit    Effect = "audit"    // it is told
	Deny     Effect = "deny"     // what breaks the rule is refused
	Disabled Effect = "disabled" // nothing
)

// The rules, by their names in the config.
const (
	RuleCustomerManaged = "customer_managed"
	RuleEscrow          = "escrow"
	RuleHardware        = "hardware"
	RulePurgeProtection = "purge_protection"
	RuleMinimumBits     = "minimum_bits"
	RuleMaximumAge      = "maximum_age"
)

// Rules say what a vault and its keys must be. What a provider does not say of a key
// is never a breach: under a rule that was asked for it is a finding with the effect
// Audit.
type Rules struct {
	CustomerManaged Effect // no vault of software keys
	Escrow          Effect // an escrow key or a second key; default Audit
	Hardware        Effect // private halves that cannot leave their hardware
	// PurgeProtection: keys in Key Vault that nobody can destroy at once; default Deny.
	// Other providers know nothing of the kind.
	PurgeProtection Effect
	MinimumBits     MinimumBits
	MaximumAge      MaximumAge
	// Sizes in bits that new secrets may be wrapped with; default 2048, 3072, 4096.
	// Usable holds to them; Judge says nothing of them.
	Sizes []int
}

// MinimumBits is a rule on the size of keys.
type MinimumBits struct {
	Bits   int
	Effect Effect
}

// MaximumAge is a rule on the age of key versions in use.
type MaximumAge struct {
	Age    time.Duration
	Effect Effect
}

// Subject is what the rules judge. Without a Vault it is keys alone, and the rules
// on vaults do not apply.
type Subject struct {
	Vault    string
	Mode     string     // "software" or "customer-managed"
	Keys     []KeyFacts // those that new secrets are wrapped with, escrow keys too
	Wrappers int        // how many keys new secrets are wrapped with
	Escrow   bool       // one of them is an escrow key
}

// KeyFacts is a key and what its provider says of it.
type KeyFacts struct {
	Ref   kek.Ref
	Facts kek.Facts
	Err   error // why the provider did not say it; then Facts counts as unsaid
}

// Finding is a rule that is broken, or that could not be judged. It has no secret.
type Finding struct {
	Rule    string // its name in the config
	Effect  Effect // Audit or Deny
	Subject string // "key main", "vault site"
	Says    string // how it is broken, without a full stop
	Next    string // what to do, and where
}

// Judge returns what breaks the rules: in the order of the rules above, and in each
// rule in that of the keys.
func (r Rules) Judge(now time.Time, s Subject) []Finding {
	var out []Finding
	if s.Vault != "" {
		out = append(out, r.judgeVault(s)...)
	}
	for _, rule := range []func(KeyFacts) (Finding, bool){
		r.hardware,
		r.purgeProtection,
		r.minimumBits,
		func(k KeyFacts) (Finding, bool) { return r.maximumAge(now, k) },
	} {
		for _, k := range s.Keys {
			if k.Err != nil {
				k.Facts = kek.Facts{}
			}
			if f, found := rule(k); found {
				f.Subject = "key " + k.Ref.Name
				out = append(out, f)
			}
		}
	}
	return out
}

func (r Rules) judgeVault(s Subject) []Finding {
	var out []Finding
	subject := "vault " + s.Vault
	if r.CustomerManaged.on() {
		f := Finding{Rule: RuleCustomerManaged, Effect: r.CustomerManaged, Subject: subject,
			Says: "the vault is under software keys",
			Next: "give it a key in an HSM or Key Vault, and raise its mode to customer-managed"}
		switch s.Mode {
		case "customer-managed":
		case "":
			out = append(out, unsaid(f, "its mode is not known"))
		default:
			out = append(out, f)
		}
	}
	escrow := r.Escrow.or(Audit)
	if escrow.on() && !s.Escrow && s.Wrappers < 2 {
		out = append(out, Finding{Rule: RuleEscrow, Effect: escrow, Subject: subject,
			Says: "a single key opens the vault: if it is lost, everything in the vault is lost",
			Next: fmt.Sprintf("add an escrow key (public: FILE) or a second key to keys, name it under vaults.%s.keys, coffer config reload, then coffer key rotate %s", s.Vault, s.Vault)})
	}
	return out
}

func (r Rules) hardware(k KeyFacts) (Finding, bool) {
	f := Finding{Rule: RuleHardware, Effect: r.Hardware, Says: "its private half is not held in hardware",
		Next: "use a key in an HSM, or one of a Key Vault type with HSM in its name (RSA-HSM)"}
	switch {
	case !r.Hardware.on() || k.Ref.Provider == kek.Escrow:
		return Finding{}, false // who holds an escrow key offline decides how
	case k.Ref.Provider == kek.Software || k.Facts.Hardware == kek.No:
		return f, true
	case k.Facts.Hardware == kek.Unsaid:
		return unsaid(f, notSaid("whether it is held in hardware", k)), true
	}
	return Finding{}, false
}

func (r Rules) purgeProtection(k KeyFacts) (Finding, bool) {
	effect := r.PurgeProtection.or(Deny)
	f := Finding{Rule: RulePurgeProtection, Effect: effect}
	if !effect.on() || k.Ref.Provider != kek.KeyVault {
		return Finding{}, false
	}
	if f.Says, f.Next = unprotected(k.Facts); f.Says != "" {
		return f, true
	}
	if k.Facts.PurgeProtection == kek.Unsaid && r.PurgeProtection.on() {
		return unsaid(f, notSaid("whether it can be destroyed at once", k)), true
	}
	return Finding{}, false
}

func (r Rules) minimumBits(k KeyFacts) (Finding, bool) {
	m := r.MinimumBits
	f := Finding{Rule: RuleMinimumBits, Effect: m.Effect,
		Says: fmt.Sprintf("it has %d bits, fewer than %d", k.Ref.Bits, m.Bits),
		Next: fmt.Sprintf("make a key of at least %d bits, and rotate to it", m.Bits)}
	switch {
	case !m.Effect.on():
		return Finding{}, false
	case k.Ref.Bits <= 0:
		return unsaid(f, notSaid("how many bits it has", k)), true
	}
	return f, k.Ref.Bits < m.Bits
}

func (r Rules) maximumAge(now time.Time, k KeyFacts) (Finding, bool) {
	m := r.MaximumAge
	f := Finding{Rule: RuleMaximumAge, Effect: m.Effect, Next: "make a new version of the key, then coffer key rotate"}
	switch {
	case !m.Effect.on():
		return Finding{}, false
	case k.Facts.Created.IsZero():
		return unsaid(f, notSaid("when it was made", k)), true
	}
	age := now.Sub(k.Facts.Created)
	f.Says = fmt.Sprintf("it was made at %s, %d days ago: more than %d days", k.Facts.Created.UTC().Format(stamp), days(age), days(m.Age))
	return f, age > m.Age
}

// ErrMayNotWrap: a key that opens what it wrapped, and with which nothing new may be
// wrapped. It is a kek.ErrUnsuitable.
var ErrMayNotWrap = fmt.Errorf("%w to wrap anything new", kek.ErrUnsuitable)

// Usable returns ErrMayNotWrap, with every reason and what to do, unless
// something new may be wrapped with a key: it is RSA of an allowed size, enabled,
// inside its dates and may unwrap, and in Key Vault nobody can destroy it at once
// (unless the rule on purge protection is Audit or Disabled). What the provider does
// not say is no reason. To open what is wrapped already none of this is asked: a key
// that has expired still opens.
func Usable(now time.Time, r Rules, ref kek.Ref, f kek.Facts) error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	sizes := r.Sizes
	if len(sizes) == 0 {
		sizes = []int{2048, 3072, 4096}
	}
	if !slices.Contains(sizes, ref.Bits) {
		fault("it has %d bits, and allowed are %s: make an RSA key of one of these sizes", ref.Bits, strings.Trim(strings.ReplaceAll(fmt.Sprint(sizes), " ", ", "), "[]"))
	}
	if f.Enabled == kek.No {
		fault("it is disabled: enable it at its provider, or use another")
	}
	if f.MayUnwrap == kek.No {
		fault("it may not unwrap: allow the operation unwrap at its provider")
	}
	if !f.NotBefore.IsZero() && now.Before(f.NotBefore) {
		fault("it is not valid before %s, and it is %s here: wait, correct its activation date, or set this machine's clock", f.NotBefore.UTC().Format(stamp), now.UTC().Format(stamp))
	}
	if !f.Expires.IsZero() && !now.Before(f.Expires) {
		fault("it expired at %s, and it is %s here: make a new version of it, extend its date, or set this machine's clock; what it wrapped it still opens", f.Expires.UTC().Format(stamp), now.UTC().Format(stamp))
	}
	if ref.Provider == kek.KeyVault && r.PurgeProtection.or(Deny) == Deny {
		if says, next := unprotected(f); says != "" {
			fault("%s: %s", says, next)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMayNotWrap, strings.Join(faults, "; "))
}

// unprotected says how a key can be destroyed at once, "" if that is not known.
func unprotected(f kek.Facts) (says, next string) {
	if f.SoftDelete == kek.No {
		return "soft delete is off where it is kept: who deletes it destroys it at once", "turn on soft delete and purge protection of its vault"
	}
	if f.PurgeProtection == kek.No {
		return "purge protection is off where it is kept: who may purge can destroy it at once", "turn on purge protection of its vault"
	}
	return "", ""
}

func (e Effect) on() bool { return e == Audit || e == Deny }

func (e Effect) or(std Effect) Effect {
	if e == "" {
		return std
	}
	return e
}

// unsaid makes a finding of what could not be judged: it never denies.
func unsaid(f Finding, says string) Finding {
	f.Effect, f.Says, f.Next = Audit, says, "look it up at the key's provider"
	return f
}

func notSaid(what string, k KeyFacts) string {
	text := what + " is not said by the provider"
	if k.Err != nil {
		text += ": " + short(k.Err)
	}
	return text
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }
