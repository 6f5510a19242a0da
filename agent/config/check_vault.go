package config

import (
	"cmp"
	"path/filepath"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// Bounds of what may be asked of vaults.
const (
	minPruneGrace = Duration(time.Hour)
	maxSpan       = Duration(maxDays * 24 * time.Hour)
	maxBelow      = 90 // percent
	minRepack     = Size(1 << 20)
	minEvery      = Duration(24 * time.Hour)
)

// The defaults of vaults.
const (
	defaultPruneGrace = Duration(72 * time.Hour)
	defaultAbandon    = Duration(14 * 24 * time.Hour)
	defaultBelow      = 50
	defaultRepack     = Size(10 << 30)
	defaultEvery      = Duration(30 * 24 * time.Hour)
)

func checkLock(p *problems, field string, l *Lock, store string) {
	checkOneOf(p, field+".mode", l.Mode, "governance", "compliance")
	if l.Days < 1 || l.Days > maxDays {
		p.add(field+".days", "use 1 to 36500", "a lock of %d days makes no sense", l.Days)
	}
	if strings.HasPrefix(store, "file:") && l.Mode == "compliance" {
		p.add(field+".mode", "use governance, or an S3 bucket with object lock", "a folder cannot be locked so that nobody can lift it: root always can")
	}
}

func checkLimits(p *problems, field string, l Limits) {
	checkRate(p, field+".upload", l.Upload)
	checkRate(p, field+".download", l.Download)
}

func checkPrune(p *problems, field string, r Prune) {
	checkTimes(p, field+".schedule", r.Schedule)
	if p.given(field+".grace") && (r.Grace < minPruneGrace || r.Grace > maxSpan) {
		p.add(field+".grace", "use 1h or more", "such a grace time makes no sense: a restore that has begun must be able to end")
	}
	if p.given(field + ".abandon") {
		if least := cmp.Or(r.Grace, defaultPruneGrace); r.Abandon < least || r.Abandon > maxSpan {
			p.add(field+".abandon", "use as long as grace ("+policy.Span(time.Duration(least))+") or more", "it is shorter than grace, or longer than a hundred years")
		}
	}
	if b := r.RepackBelow; b != nil && (*b < 0 || *b > maxBelow) {
		p.add(field+".repack_below", "use 0 (never) to 90, in percent", "%d makes no sense", *b)
	}
	if p.given(field+".repack_most") && r.RepackMost < minRepack {
		p.add(field+".repack_most", `use "1 MiB" or more; to never rewrite a pack: repack_below: 0`, "%d bytes make no sense", r.RepackMost)
	}
}

func checkVerify(p *problems, field string, v Verify) {
	checkTimes(p, field+".structure", v.Structure)
	checkTimes(p, field+".data", v.Data)
	checkTimes(p, field+".restore", v.Restore)
	if p.given(field+".every") && (v.Every < minEvery || v.Every > maxSpan) {
		p.add(field+".every", "use 1d or more", "such a time makes no sense")
	}
	if v.Every > 0 && v.Data == "" {
		p.add(field+".every", "add data, or leave every out", "it is about data, which has no schedule")
	}
	checkAbs(p, field+".scratch", v.Scratch)
	if v.Scratch != "" && v.Restore == "" && !p.bad[field+".scratch"] {
		p.add(field+".scratch", "add restore, or leave scratch out", "it is for restore, which has no schedule")
	}
}

// defaults fills in what a vault may leave out.
func (v *Vault) defaults(state string) {
	v.Compression = or(v.Compression, "fastest")
	if v.Lock != nil {
		v.Lock.Mode = or(v.Lock.Mode, "governance")
	}
	r := &v.Prune
	r.Grace = cmp.Or(r.Grace, defaultPruneGrace)
	r.Abandon = cmp.Or(r.Abandon, max(defaultAbandon, r.Grace))
	if r.RepackBelow == nil {
		below := defaultBelow
		r.RepackBelow = &below
	}
	r.RepackMost = cmp.Or(r.RepackMost, defaultRepack)
	v.Verify.Every = cmp.Or(v.Verify.Every, defaultEvery)
	v.Verify.Scratch = or(v.Verify.Scratch, filepath.Join(state, "scratch"))
}
