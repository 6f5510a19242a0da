package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/doctor"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// Diagnose implements control.System: it tries everything that the agent depends on.
func (a *Agent) Diagnose(ctx context.Context) (control.Diagnosis, error) {
	cfg := a.settings()
	var looks []doctor.Look
	for _, part := range []func(*config.Config) []doctor.Look{a.lookAtHost, a.lookAtVaults, a.lookAtItems, a.lookAtPrograms, a.lookAtNotify} {
		looks = append(looks, part(cfg)...)
	}
	return control.Diagnosis{Checks: doctor.Run(ctx, looks)}, ctx.Err()
}

// one is a look that finds one thing.
func one(subject, what string, try func(ctx context.Context) control.Check) doctor.Look {
	return doctor.Look{Subject: subject, What: what, Try: func(ctx context.Context) []control.Check { return []control.Check{try(ctx)} }}
}

// lookAtHost looks at what the agent has on this machine.
func (a *Agent) lookAtHost(cfg *config.Config) []doctor.Look {
	looks := []doctor.Look{
		{Subject: "state folder", What: "write", Try: func(context.Context) []control.Check { return doctor.Folder(a.state.Dir()) }},
		one("clock", "synchronised", func(context.Context) control.Check { return doctor.Clock() }),
		one("audit log", "chain", func(ctx context.Context) control.Check {
			const next = "make room in, or mend, the agent's state folder; then: coffer audit verify"
			if err := a.audit.Fault(); err != nil {
				return doctor.Bad("chain", next, "the last event was not recorded: %v", err)
			}
			r, err := a.VerifyAudit(ctx, control.AuditVerify{})
			switch {
			case err != nil:
				return doctor.Bad("chain", next, "%v", err)
			case len(r.Faults) > 0:
				return doctor.Bad("chain", "find out who changed it, and when; a copy in the system's log (audit.syslog) helps", "%d faults, the first: %s", len(r.Faults), r.Faults[0])
			}
			return doctor.Good("chain", "it is whole; lines: %d", r.Lines)
		}),
	}
	if path := cfg.Name; filepath.IsAbs(path) {
		looks = append(looks, one("config file", "owner and mode", func(context.Context) control.Check { return doctor.ConfigFile(path) }))
	}
	if p := a.reloadFault(); p != nil {
		looks = append(looks, one("config file", "in use", func(context.Context) control.Check { return doctor.Bad("in use", p.Next, "%s", p.Message) }))
	}
	if path := cmp.Or(cfg.Agent.Socket, control.DefaultSocket); filepath.IsAbs(path) && !strings.HasPrefix(path, `\\`) {
		looks = append(looks, doctor.Look{Subject: "socket", What: "socket", Try: func(context.Context) []control.Check { return doctor.Socket(path) }})
	}
	if cfg.Agent.Metrics != "" {
		looks = append(looks, one("metrics", "reach", func(ctx context.Context) control.Check { return reachMetrics(ctx, cfg.Agent.Metrics) }))
	}
	for _, ref := range a.secretsOf(cfg) {
		looks = append(looks, one("secret", ref, func(context.Context) control.Check {
			if a.Parts.Secret == nil {
				return doctor.Skipped(ref, "nothing here reads secrets")
			}
			return doctor.Secret(ref, a.Parts.Secret)
		}))
	}
	return looks
}

func reachMetrics(ctx context.Context, address string) control.Check {
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return doctor.Bad("reach", "see in the agent's log why they are not served, and whether something else has the address", "%v", err)
	}
	conn.Close()
	return doctor.Good("reach", "they are served on %s", address)
}

// secretsOf are the references to secrets that the configuration has, each once.
func (a *Agent) secretsOf(cfg *config.Config) []string {
	var refs []string
	inQuery := func(uri string, names ...string) {
		_, query, _ := strings.Cut(uri, "?")
		for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
			name, value, _ := strings.Cut(pair, "=")
			if plain, err := url.PathUnescape(value); err == nil && slices.Contains(names, name) {
				refs = append(refs, plain)
			}
		}
	}
	for _, k := range cfg.Keys {
		inQuery(k.URI, "pin-source", "passphrase-source")
		if k.Credential != nil {
			refs = append(refs, k.Credential.SecretSource)
		}
	}
	for _, v := range cfg.Vaults {
		inQuery(v.Store, "credentials")
	}
	for _, n := range cfg.Notify {
		switch {
		case n.Webhook != nil:
			refs = append(refs, n.Webhook.URLSource, n.Webhook.TokenSource)
		case n.SMTP != nil:
			refs = append(refs, n.SMTP.PasswordSource)
		case n.Ping != nil:
			refs = append(refs, n.Ping.URLSource)
		}
	}
	refs = slices.DeleteFunc(refs, func(ref string) bool { return !strings.HasPrefix(ref, "file:") && !strings.HasPrefix(ref, "env:") })
	slices.Sort(refs)
	return slices.Compact(refs)
}

// lookAtVaults looks at stores and keys.
func (a *Agent) lookAtVaults(cfg *config.Config) []doctor.Look {
	var looks []doctor.Look
	for _, name := range slices.Sorted(maps.Keys(cfg.Vaults)) {
		v := cfg.Vaults[name]
		looks = append(looks, doctor.Look{Subject: "store of " + name, What: "reach and list", Try: func(ctx context.Context) []control.Check {
			st, err := a.openStore(ctx, v)
			if err != nil {
				wire := control.AsError(fault.Names{Vault: name}.Of(err))
				next := cmp.Or(wire.Next, "correct vaults."+name+".store in the config")
				if _, unmade := a.vaults.Pinned(name); unmade != nil && errors.Is(err, store.ErrMissing) {
					next = "make the vault: coffer vault create " + name + "; or, if it was made before, mount it"
				}
				return []control.Check{doctor.Bad("reach and list", next, "%s", wire.Message)}
			}
			defer vault.CloseStore(st, name, a.Log)
			out := doctor.Store(ctx, st, a.storeAsk(ctx, cfg, name))
			if v.Prune.Schedule != "" {
				out = append(out, a.lookAtPrune(name))
			}
			return out
		}})
		looks = append(looks, one("vault "+name, "open", func(ctx context.Context) control.Check {
			shown, err := a.describeVault(ctx, ctx, name)
			switch {
			case err != nil:
				return doctor.Bad("open", "", "%v", err)
			case shown.State == control.StateAbsent:
				return doctor.Warning("open", "make it: coffer vault create "+name, "it is not made yet")
			case shown.Error != nil && shown.State == control.StateDegraded:
				return doctor.Warning("open", shown.Error.Next, "%s", shown.Error.Message)
			case shown.Error != nil:
				return doctor.Bad("open", shown.Error.Next, "%s", shown.Error.Message)
			}
			return doctor.Good("open", "its keys open it: %s", shown.State)
		}))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Keys)) {
		looks = append(looks, one("key "+name, "check", func(ctx context.Context) control.Check { return a.lookAtKey(ctx, name) }))
	}
	return looks
}

// storeAsk says what to look for in the store of a vault.
func (a *Agent) storeAsk(ctx context.Context, cfg *config.Config, name string) doctor.StoreAsk {
	v := cfg.Vaults[name]
	ask := doctor.StoreAsk{Known: catalog.Descriptor, Now: a.Clock(), Folder: folderOf(v.Store)}
	for _, it := range cfg.Items {
		ask.Backups = ask.Backups || it.Vault == name
	}
	if v.Lock != nil {
		ask.Lock = doctor.LockAsk{Newest: a.newestPoint(ctx, cfg, name), Under: catalog.Items, Next: doctor.LockNext(name, v.Store)}
	}
	return ask
}

// folderOf returns the folder that a store is in; "" if it is in none.
func folderOf(store string) string {
	u, err := url.Parse(store)
	if err != nil || u.Scheme != "file" {
		return ""
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/")
	}
	return filepath.FromSlash(path)
}

// newestPoint returns the object of the newest point in a vault; "" if nobody knows. Of
// many items a few will do.
func (a *Agent) newestPoint(ctx context.Context, cfg *config.Config, in string) (key store.Key) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var newest catalog.PointName
	looked := 0
	for name, it := range cfg.Items {
		if it.Vault != in || looked == vault.FewItems {
			continue
		}
		looked++
		open, _, err := a.vaults.Remembering(ctx, name)
		if err != nil {
			continue // another look says why
		}
		for s, err := range open.PointsThere(ctx, 1) {
			if err == nil && s.Name > newest {
				newest, key = s.Name, open.PointKey(s.Name)
			}
		}
		open.Close()
	}
	return key
}

// lookAtPrune says whether the last prune of a vault could remove what it was to remove:
// nothing is deleted here to find out.
func (a *Agent) lookAtPrune(vault string) control.Check {
	const what = "delete"
	for _, j := range a.jobs.List(control.JobFilter{Limit: 1000}) { // the newest first
		of := j.Vault == vault || a.settings().Items[j.Item].Vault == vault || j.Vault == "" && j.Item == "" // all of them
		if j.Kind != control.KindPrune || !of || !j.State.Ended() || j.Result != nil && j.Result.Prune != nil && j.Result.Prune.DryRun {
			continue
		}
		if j.State == control.JobFailed && j.Error != nil {
			next := cmp.Or(j.Error.Next, "let the credentials delete, or leave vaults."+vault+".prune out and prune from another host")
			if j.Error.Code == control.CodeStore || j.Error.Code == control.CodeKeysInaccessible { // it may be over
				next += "; then: " + strings.TrimSpace("coffer prune "+j.Item)
			}
			return doctor.Bad(what, next, "the last prune failed: %s", j.Error.Message)
		}
		return doctor.Good(what, "the last prune did what it was to do")
	}
	return doctor.Skipped(what, "no prune has run yet, and nothing is deleted to try it")
}

func (a *Agent) lookAtKey(ctx context.Context, name string) control.Check {
	const what = "check"
	r, err := a.CheckKey(ctx, control.KeyCheckRequest{Key: name})
	if err != nil {
		return doctor.Bad(what, "see more: coffer key check "+name, "%v", err)
	}
	var warned *control.KeyStep
	for i, s := range r.Steps {
		switch s.Verdict {
		case control.VerdictFailed:
			return doctor.Bad(what, cmp.Or(s.Next, "see more: coffer key check "+name), "%s: %s", s.Stage, s.Says)
		case control.VerdictWarned:
			warned = &r.Steps[i]
		}
	}
	switch {
	case warned != nil:
		return doctor.Warning(what, cmp.Or(warned.Next, "see more: coffer key check "+name), "%s: %s", warned.Stage, warned.Says)
	case len(r.Rules) > 0:
		return doctor.Warning(what, r.Rules[0].Next, "rule %s: %s", r.Rules[0].Rule, r.Rules[0].Says)
	}
	return doctor.Good(what, "%d steps passed", len(r.Steps))
}

// lookAtItems looks at what is backed up, and at what is kept of it.
func (a *Agent) lookAtItems(cfg *config.Config) []doctor.Look {
	var looks []doctor.Look
	files := false
	for _, name := range slices.Sorted(maps.Keys(cfg.Items)) {
		it := cfg.Items[name]
		looks = append(looks, doctor.Look{Subject: "item " + name, What: "paths", Try: func(ctx context.Context) []control.Check {
			var out []control.Check
			if it.Files != nil {
				for _, path := range slices.Concat(it.Files.Paths, it.Files.ExcludeFiles) {
					out = append(out, doctor.Source(path))
				}
			}
			if it.Stream != nil && len(it.Stream.Command) > 0 {
				out = append(out, doctor.Program(it.Stream.Command[0]))
			}
			return append(out, a.checkPoints(ctx, name))
		}})
		files = files || it.Files != nil
	}
	if files {
		looks = append(looks, one("agent", "capabilities", func(context.Context) control.Check { return doctor.Capabilities() }))
	}
	return looks
}

// checkPoints looks at the points of an item, their index, and who wrote the last one.
func (a *Agent) checkPoints(ctx context.Context, name string) control.Check {
	const what = "points and index"
	shown, err := a.item(ctx, name, func(out *control.Item) error { return a.lookAt(ctx, name, out) })
	switch {
	case err != nil:
		return doctor.Bad(what, "", "%v", err)
	case shown.Error != nil:
		return doctor.Bad(what, shown.Error.Next, "%s", shown.Error.Message)
	case shown.Points == 0:
		return doctor.Warning(what, "make one: coffer backup "+name, "it has no point yet")
	}
	it, p, err := a.points.Open(ctx, name, "", "")
	if err != nil {
		wire := control.AsError(fault.Of(err))
		return doctor.Bad(what, wire.Next, "%s", wire.Message)
	}
	it.Close()
	if newer(p.Agent, a.Program.Version) {
		return doctor.Warning(what, "bring this host to the same version", "the last point was written by version %s, and this is %s", p.Agent, a.Program.Version)
	}
	return doctor.Good(what, "the last good point is of %s; points: %d", shown.LastGood.UTC().Format(time.RFC3339), shown.Points)
}

// newer tells whether version x is newer than y: 0.10.0 than 0.9.1. Only the numbers
// before anything else count.
func newer(x, y string) bool {
	numbers := func(version string) []int {
		var out []int
		release, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
		for part := range strings.SplitSeq(release, ".") {
			n, err := strconv.Atoi(part)
			if err != nil {
				return nil
			}
			out = append(out, n)
		}
		return out
	}
	a, b := numbers(x), numbers(y)
	return a != nil && b != nil && slices.Compare(a, b) > 0
}

// lookAtPrograms looks at the commands of hooks.
func (a *Agent) lookAtPrograms(cfg *config.Config) []doctor.Look {
	var looks []doctor.Look
	for _, name := range slices.Sorted(maps.Keys(cfg.Policies)) {
		hooks := cfg.Policies[name].Hooks
		for _, h := range []struct {
			when string
			hook *config.Hook
		}{{"pre", hooks.Pre}, {"post", hooks.Post}} {
			if h.hook != nil && len(h.hook.Command) > 0 {
				looks = append(looks, one(fmt.Sprintf("hook %s of %s", h.when, name), "program", func(context.Context) control.Check {
					return doctor.Program(h.hook.Command[0])
				}))
			}
		}
	}
	return looks
}

// lookAtNotify looks at how people are told. Nobody is told anything.
func (a *Agent) lookAtNotify(cfg *config.Config) []doctor.Look {
	var looks []doctor.Look
	for _, name := range slices.Sorted(maps.Keys(cfg.Notify)) {
		looks = append(looks, one("notify "+name, "reach", func(ctx context.Context) control.Check {
			if err := a.tell.Check(ctx, cfg.Notify[name]); err != nil {
				return doctor.Bad("reach", "see that it is up and can be reached from here, or correct notify."+name+" in the config", "%v", err)
			}
			return doctor.Good("reach", "it is there; nothing was sent")
		}))
	}
	return looks
}
