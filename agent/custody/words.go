package custody

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// stamp is how times are written for people.
const stamp = "2006-01-02 15:04:05 MST"

// reason says why the state is what it is.
func (r *record) reason(now time.Time, s Settings) string {
	bad := r.bad()
	faults := join(bad, keyRecord.describe)
	ago := func(d time.Duration) string { return now.Add(-d).UTC().Format(stamp) }
	until := func(left time.Duration) string {
		return "; cached secrets go on until " + now.Add(left).UTC().Format(stamp)
	}
	var says string
	switch r.Cause {
	case allOpen:
		if len(r.Keys) == 1 {
			return "the key opens the vault"
		}
		return "every key opens the vault"
	case someOpen:
		return fmt.Sprintf("%d of %d keys open the vault: %s", len(r.Keys)-len(bad), len(r.Keys), faults)
	case cameBack:
		return fmt.Sprintf("the keys were taken away for more than %s: an operator must confirm that the vault may be used again", span(s.Heal))
	case outOfReach:
		says = "no key can be reached: " + faults
	case takenAway:
		says = fmt.Sprintf("no key opens the vault since %s: %s", ago(r.Outage), faults)
	case nobodyAsked:
		says = "no key was asked since " + ago(r.Quiet)
	}
	if r.State == Degraded {
		left := s.Grace - r.Closed
		if r.Cause == takenAway {
			left = min(left, s.Limit-r.Outage)
		}
		says += until(left)
	}
	return says
}

// next says what to do about it.
func (r *record) next() string {
	switch r.Cause {
	case allOpen:
		return ""
	case cameBack:
		return "find out who took the keys away and why; then confirm: coffer key revalidate"
	case nobodyAsked:
		return "look into the agent's log for why it asks no key; restart the service"
	}
	return join(r.bad(), keyRecord.advice)
}

// alarm says how long the keys have been gone.
func (r *record) alarm() string {
	bad := join(r.bad(), keyRecord.describe)
	if r.Outage < time.Minute {
		return "the keys were taken away: " + bad
	}
	return fmt.Sprintf("the keys have been taken away for %s: %s", span(r.Outage), bad)
}

// span writes a duration without needless zeros: "30m", "12h", "1h5m".
func span(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	text := strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// describe says what is wrong with a key.
func (k keyRecord) describe() string {
	name := k.Key
	if k.Version != "" {
		name += " version " + k.Version
	}
	switch k.Answer {
	case Denied:
		name += " is denied"
	case Missing:
		name += " is gone"
	case Unreachable:
		name += " does not answer"
	}
	if says := k.plainly(); says != "" {
		name += ": " + says
	}
	return name
}

// plainly is what the provider said, without what describe says already: the key's
// name, the kind of its fault, and what was being done with its uri.
func (k keyRecord) plainly() string {
	says := k.Says
	for _, kind := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing, kek.ErrUnsuitable, kek.ErrWrongKey} {
		if _, after, found := strings.Cut(says, kind.Error()+": "); found {
			says = after
		}
	}
	doing, after, found := strings.Cut(says, ": ")
	if found && (strings.Contains(doing, "https://") || k.URI != "" && strings.Contains(doing, k.URI)) {
		says = after
	}
	return says
}

// advice says where to look for the cause of what is wrong with a key. What exactly
// to mend, the key's check says.
func (k keyRecord) advice() string {
	advice := map[Answer]map[kek.Provider]string{
		Unreachable: {
			kek.KeyVault: "check DNS, port 443 to Key Vault and to the sign-in host, and the proxy",
			kek.PKCS11:   "check that the token is plugged in, and that the HSM and the network to it are up",
			kek.Software: "check that the disk with the key file is mounted and can be read",
		},
		Denied: {
			kek.KeyVault: "in Key Vault, check the agent's permission and identity, that the key version is enabled, and the firewall",
			kek.PKCS11:   "check the PIN in pin-source, that it is not locked, and that the key may decrypt",
			kek.Software: "check the permissions and the passphrase of the key file",
		},
		Missing: {
			kek.KeyVault: "in Key Vault, recover the key, or the whole vault, before it is purged",
			kek.PKCS11:   "check whether the token was pulled, exchanged or initialised anew; put it back",
			kek.Software: "put the key file back from its copy",
		},
	}
	general := map[Answer]string{
		Unreachable: "check the connection to the key's provider",
		Denied:      "ask the key's owner whether it was revoked",
		Missing:     "put the key back, or link another that opens the vault",
	}
	where := advice[k.Answer][k.Provider]
	if where == "" {
		where = general[k.Answer]
	}
	return where + ": coffer key check " + k.Key
}

// join describes keys, each thing once.
func join(keys []keyRecord, says func(keyRecord) string) string {
	var parts []string
	for _, k := range keys {
		if text := says(k); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}
