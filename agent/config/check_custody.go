package config

import (
	"fmt"
	"slices"
	"time"
)

// Bounds of what may be asked of keys.
const (
	maxGrace   = Duration(30 * 24 * time.Hour)
	minBits    = 2048
	maxBits    = 4096
	maxDays    = 36500
	minLogFile = Size(64 << 10)
	maxLogFile = Size(1 << 30)
)

// sizes are those that RSA keys of every provider come in.
func sizes() []int { return []int{minBits, 3072, maxBits} }

func checkCustody(p *problems, c *Custody) {
	const field = "custody"
	if c.Grace > maxGrace {
		p.add(field+".grace", "use 0 to 30d", "it is longer than 30 days")
	}
	seen := map[int]bool{}
	for i, bits := range c.Sizes {
		at := fmt.Sprintf("%s.sizes[%d]", field, i)
		switch {
		case !slices.Contains(sizes(), bits):
			p.add(at, "use 2048, 3072 or 4096", "RSA keys of %d bits are not supported", bits)
		case seen[bits]:
			p.add(at, "name it once", "%d is named twice", bits)
		}
		seen[bits] = true
	}
	checkRules(p, field+".rules", &c.Rules)
}

func checkRules(p *problems, field string, r *Rules) {
	checkEffect(p, field+".customer_managed", r.CustomerManaged)
	checkEffect(p, field+".hardware", r.Hardware)
	checkEffect(p, field+".purge_protection", r.PurgeProtection)
	checkEffect(p, field+".escrow", r.Escrow)
	if at, b := field+".minimum_bits", r.MinimumBits; b != nil && !p.bad[at] {
		if b.Bits < minBits || b.Bits > maxBits {
			p.add(at+".bits", fmt.Sprintf("use %d to %d", minBits, maxBits), "a minimum of %d bits makes no sense", b.Bits)
		}
		checkGivenEffect(p, at+".effect", b.Effect)
	}
	if at, a := field+".maximum_age", r.MaximumAge; a != nil && !p.bad[at] {
		if a.Days < 1 || a.Days > maxDays {
			p.add(at+".days", fmt.Sprintf("use 1 to %d", maxDays), "an age of %d days makes no sense", a.Days)
		}
		checkGivenEffect(p, at+".effect", a.Effect)
	}
}

func checkEffect(p *problems, field, effect string) {
	checkOneOf(p, field, effect, EffectAudit, EffectDeny, EffectDisabled)
}

// checkGivenEffect is for rules that are only there because somebody wrote them:
// silence would not be what was meant.
func checkGivenEffect(p *problems, field, effect string) {
	if required(p, field, effect, "say audit, deny or disabled") {
		checkEffect(p, field, effect)
	}
}

func checkAudit(p *problems, a *Audit) {
	const field = "audit.max_size"
	if (p.given(field) || a.MaxSize != 0) && (a.MaxSize < minLogFile || a.MaxSize > maxLogFile) {
		p.add(field, "use 64 KiB to 1 GiB", "a file of %d bytes makes no sense", a.MaxSize)
	}
}
