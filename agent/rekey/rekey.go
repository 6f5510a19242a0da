// Package rekey is what is done about the keys of vaults that are open: it rotates them, and
// follows new versions by itself; it says what hangs on each; and it tries what it would be
// like to lose one.
package rekey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/agent/watch"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// Config of a keeper: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Keys     *keyring.Keyring
	Vaults   *vault.Set
	Watch    *watch.Watch
	Rules    *ruling.Judge
	Jobs     *queue.Queue
	// Start queues a job.
	Start func(by string, job control.Job, do queue.Work) *queue.Job
	// MakeVersion has a key's provider make a new version of it.
	MakeVersion func(ctx context.Context, name string, key config.Key) (kek.Ref, error)
	// Backup makes a point of an item, and ReadBack reads all of one and keeps nothing: it
	// returns how many bytes that were.
	Backup   func(ctx context.Context, item string) (*catalog.Point, error)
	ReadBack func(ctx context.Context, item string, p *catalog.Point) (int64, error)
	// Record has an event in the audit log.
	Record func(ctx context.Context, e audit.Event) error
	Clock  func() time.Time
	Log    *slog.Logger
}

// Keeper keeps the keys of vaults in order. It implements parts of control.Keys and
// control.Custody, and is safe for concurrent use.
type Keeper struct {
	cfg      Config
	follower follower // only Follow has it
}

// New returns a keeper.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, follower: follower{found: make(map[string]time.Time), tries: make(map[string]attempt)}}
}

// rekeyParallel is how many secrets are opened at once. Providers that count calls
// hold them up themselves.
const rekeyParallel = 8

// RotateKeys implements control.Custody.
func (k *Keeper) RotateKeys(ctx context.Context, req control.KeyRotate) (control.Job, error) {
	if _, err := k.cfg.Vaults.Open(ctx, req.Vault); err != nil {
		return control.Job{}, err
	}
	return k.startRekey(control.PeerFrom(ctx).String(), rekey{vault: req.Vault, newVersion: req.NewVersion, newGeneration: req.NewGeneration}), nil
}

// RaiseMode implements control.Custody.
func (k *Keeper) RaiseMode(ctx context.Context, req control.VaultMode) (control.Job, error) {
	if req.Mode != catalog.CustomerManaged.String() {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("mode %q cannot be chosen: a vault can only become %s", req.Mode, catalog.CustomerManaged)}
	}
	v, err := k.cfg.Vaults.Open(ctx, req.Vault)
	if err != nil {
		return control.Job{}, err
	}
	if v.Catalog.Mode() == catalog.CustomerManaged {
		return control.Job{}, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("vault %s is customer-managed already", req.Vault), Next: "see it: coffer vault show " + req.Vault}
	}
	if k.cfg.Settings().Vaults[req.Vault].Mode == catalog.SoftwareKeys.String() { // it would not open under this any more
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("the config says that vault %s has software keys", req.Vault),
			Next: fmt.Sprintf("write vaults.%s.mode: customer-managed, reload (coffer config reload), and say this again", req.Vault)}
	}
	if key, ok := k.cfg.Settings().FileKey(k.cfg.Settings().Vaults[req.Vault]); ok {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("key %s of vault %s is a file", key, req.Vault),
			Next: fmt.Sprintf("name HSM or Key Vault keys in vaults.%s.keys, move %s to vaults.%s.restore_keys, reload (coffer config reload), and say this again", req.Vault, key, req.Vault)}
	}
	return k.startRekey(control.PeerFrom(ctx).String(), rekey{vault: req.Vault, mode: catalog.CustomerManaged}), nil
}

// rekey is what a rotation is to do.
type rekey struct {
	vault         string
	mode          catalog.Mode // 0: as it is
	newVersion    bool
	newGeneration bool
}

func (k *Keeper) startRekey(by string, r rekey) control.Job {
	j := k.cfg.Start(by, control.Job{Kind: control.KindRekey, Vault: r.vault}, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		e := audit.Event{Kind: audit.KeyRotated, Vault: r.vault, By: by, Job: j.ID(), Outcome: "begun"}
		if err := k.cfg.Record(ctx, e); err != nil {
			return nil, err
		}
		result, err := k.rekey(ctx, j, r)
		if err != nil {
			e.Outcome, e.Says = "failed", err.Error()
			return nil, fault.Of(errors.Join(err, k.cfg.Record(ctx, e)))
		}
		return &control.JobResult{Rekey: result}, nil
	})
	return j.Snapshot()
}

// rekey wraps every secret of a vault with the keys of the configuration, in the
// versions that are the newest: first all keys are tried, the secondaries before
// the primary, and only then is anything written. A crash anywhere leaves records
// that one or the other set of keys opens, and the next rekey goes on.
func (k *Keeper) rekey(ctx context.Context, j *queue.Job, r rekey) (*control.RekeyResult, error) {
	started := k.cfg.Clock()
	if k.cfg.Vaults.Drilling(r.vault) {
		return nil, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("vault %s does without a key now: a drill is running", r.vault), Next: "wait for its end: coffer job list"}
	}
	v, err := k.cfg.Vaults.Open(ctx, r.vault)
	if err != nil {
		return nil, err
	}
	if r.newVersion {
		if err := k.makeVersion(ctx, r.vault); err != nil {
			return nil, err
		}
	}
	absent, err := k.prepare(ctx, j, r)
	if err != nil {
		return nil, err
	}
	mode := v.Catalog.Mode()
	if r.mode != 0 {
		mode = r.mode
	}
	if _, err := k.cfg.Rules.Vault(ctx, r.vault, mode); err != nil {
		return nil, err
	}
	ring, missing := k.cfg.Keys.Ring(ctx, k.cfg.Vaults.Uses(r.vault))
	wrappers := ring.Wrappers()
	if len(wrappers) == 0 {
		return nil, errors.Join(append(missing, kek.ErrNoKey)...)
	}
	v.Catalog.UseRing(ring)
	out := &control.RekeyResult{Vault: r.vault}
	done, err := v.Catalog.Rewrap(ctx, catalog.RewrapOptions{
		Wrappers: wrappers, Keep: k.keepFor(absent), Mode: r.mode, Parallel: rekeyParallel, Now: k.cfg.Clock,
		Progress: func(now catalog.Rewrapped) {
			j.Follow(func() control.Progress {
				return control.Progress{Phase: "wrapping", Entries: int64(now.Done + now.Skipped), EntriesTotal: int64(now.Secrets)}
			})
		},
	})
	v.Floors.Flush()
	if err != nil {
		return nil, fmt.Errorf("vault %s: %d of %d secrets are wrapped anew: %w", r.vault, done.Done+done.Skipped, done.Secrets, err)
	}
	v.SetMissing(missing)
	if r.newGeneration { // not before the new keys have opened what they wrapped
		if out.Made, out.Opens, err = k.newGenerations(ctx, v); err != nil {
			return nil, err
		}
		v.Floors.Flush()
	}
	out.Made += done.Made
	out.Mode, out.Secrets, out.Rewrapped, out.Unwraps, out.Bytes = v.Catalog.Mode().String(), done.Secrets, done.Done, done.Unwraps, done.Bytes
	if _, err := k.look(ctx, v); err != nil {
		return nil, err
	}
	out.Coverage = v.View().Coverage
	out.Seconds = k.cfg.Clock().Sub(started).Seconds()
	return out, k.recordRekey(ctx, j, r, out)
}

func (k *Keeper) recordRekey(ctx context.Context, j *queue.Job, r rekey, out *control.RekeyResult) error {
	by := j.Snapshot().By
	e := audit.Event{Kind: audit.KeyRotated, Vault: r.vault, By: by, Job: j.ID(), Outcome: "done",
		Fields: map[string]string{"secrets": fmt.Sprint(out.Secrets), "rewrapped": fmt.Sprint(out.Rewrapped), "generations": fmt.Sprint(out.Made)}}
	if err := k.cfg.Record(ctx, e); err != nil || r.mode == 0 {
		return err
	}
	return k.cfg.Record(ctx, audit.Event{Kind: audit.VaultMode, Vault: r.vault, By: by, Job: j.ID(), Outcome: out.Mode})
}

// makeVersion has the provider of the primary key make a new version.
func (k *Keeper) makeVersion(ctx context.Context, vault string) error {
	name := k.cfg.Settings().Vaults[vault].Keys[0]
	cfg := k.cfg.Settings().Keys[name]
	if cfg.IsFile() {
		return &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("key %s is a file, which has no versions", name),
			Next: "add another key to the config and rotate to that: put it into vaults." + vault + ".keys, and this one into restore_keys"}
	}
	e := audit.Event{Kind: audit.KeyCreated, Vault: vault, Key: name, By: keyring.AskedBy(ctx), Outcome: "begun"}
	if err := k.cfg.Record(ctx, e); err != nil {
		return err
	}
	ref, err := k.cfg.MakeVersion(ctx, name, cfg)
	if err != nil {
		return fmt.Errorf("make a version of key %s: %w", name, err)
	}
	e.Outcome, e.Fingerprint = "made", ref.Fingerprint.String()
	if err := k.cfg.Record(ctx, e); err != nil {
		return err
	}
	_, err = k.cfg.Keys.Refresh(ctx, name)
	return err
}

// prepare looks for new versions of a vault's keys, tries them, the secondaries
// before the primary, and takes those into use that the rules allow. It returns the
// keys that do not answer, or whose version in use is gone: what they have is kept
// for them, and what they lack they are owed.
func (k *Keeper) prepare(ctx context.Context, j *queue.Job, r rekey) (absent []string, err error) {
	names := k.cfg.Settings().Vaults[r.vault].Keys
	for _, name := range slices.Backward(names) {
		e, err := k.cfg.Keys.Refresh(ctx, name)
		if err == nil && e.InUse == nil && e.Next == nil {
			err = e.Stale
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case len(names) == 1:
			return nil, err
		default:
			j.Note("warning", fmt.Sprintf("%v; it is owed its wrappings", err))
			absent = append(absent, name)
			continue
		}
		if e.Next == nil {
			continue
		}
		if err := k.adopt(ctx, j, r.vault, e); err != nil {
			return nil, err
		}
		j.Note("info", fmt.Sprintf("key %s: version %s is in use now", name, e.Next.Ref().Version))
	}
	return absent, nil
}

// adopt tries the new version of a key and takes it into use. There is no way back
// from that, so the rules are asked first.
func (k *Keeper) adopt(ctx context.Context, j *queue.Job, vault string, e *keyring.Entry) error {
	ref := e.Next.Ref()
	if err := e.Next.Check(ctx); err != nil {
		return fmt.Errorf("try the new version %s of key %s: %w", ref.Version, e.Name, err)
	}
	if err := k.mirrored(ctx, vault, e); err != nil {
		return err
	}
	if err := k.cfg.Rules.Version(ctx, vault, e.Next); err != nil {
		return fmt.Errorf("the new version %s of key %s is not taken into use: %w", ref.Version, e.Name, err)
	}
	followed := audit.Event{Kind: audit.KeyFollowed, Vault: vault, Key: e.Name, Fingerprint: ref.Fingerprint.String(), By: j.Snapshot().By, Job: j.ID()}
	if err := k.cfg.Record(ctx, followed); err != nil {
		return err
	}
	if err := k.cfg.Keys.Adopt(ctx, e.Name, ref.Fingerprint); err != nil {
		return fmt.Errorf("take the new version %s of key %s into use: %w", ref.Version, e.Name, err)
	}
	return nil
}

// mirrored refuses a new version of a key whose material another key of the vault
// had too, unless that one has the new version as well: a mirror that lags is found
// out when it is needed.
func (k *Keeper) mirrored(ctx context.Context, vault string, key *keyring.Entry) error {
	name, next := key.Name, key.Next
	has := func(refs []kek.Ref, f kek.Fingerprint) bool {
		return slices.ContainsFunc(refs, func(r kek.Ref) bool { return r.Fingerprint == f })
	}
	for _, other := range k.cfg.Settings().Vaults[vault].Keys {
		e, err := k.cfg.Keys.Entry(ctx, other)
		if other == name || err != nil || len(e.Versions) == 0 {
			continue
		}
		shared := false
		for _, r := range key.Refs() {
			shared = shared || r.Fingerprint != next.Ref().Fingerprint && has(e.Refs(), r.Fingerprint)
		}
		if shared && !has(e.Refs(), next.Ref().Fingerprint) {
			return &control.Error{Code: control.CodeConflict,
				Message: fmt.Sprintf("key %s mirrors key %s, and has not its new version %s", other, name, next.Ref().Version),
				Next:    fmt.Sprintf("import that version into %s first, then say this again", other)}
		}
	}
	return nil
}

// keepFor tells which wrappings stay as they are: those of keys that do not answer,
// whose public half is not known now. If it is not remembered which versions such a
// key had, every wrapping may be its own, and stays.
func (k *Keeper) keepFor(absent []string) func(kek.Wrapped) bool {
	var theirs []string
	for _, name := range absent {
		used := k.cfg.State.Used(name)
		if len(used) == 0 {
			return func(kek.Wrapped) bool { return true }
		}
		for _, v := range used {
			theirs = append(theirs, v.Fingerprint)
		}
	}
	return func(w kek.Wrapped) bool { return slices.Contains(theirs, w.Fingerprint.String()) }
}

// newGenerations gives every item of the vault a new secret, and says what the old
// keys still open.
func (k *Keeper) newGenerations(ctx context.Context, v *vault.Vault) (made int, opens []string, err error) {
	items, damaged := v.Catalog.Items(ctx)
	if damaged != nil {
		return 0, nil, damaged
	}
	points := 0
	for _, it := range items {
		name := it.Name()
		names, err := it.Points(ctx)
		it.Close()
		if err == nil {
			err = v.Catalog.NewGeneration(ctx, name, k.cfg.Clock())
		}
		if err != nil {
			return made, nil, fmt.Errorf("new generation of item %s: %w", name, err)
		}
		points += len(names)
		made++
	}
	return made, []string{
		fmt.Sprintf("Whoever has an old key, and copies of the key records as they were, still opens what was backed up until now, %s, and reads the names of items.", control.Counted(points, "point")),
		"He can also make key records that this vault accepts, because the vault's own key is never changed: if he can write to the store, make a new vault.",
		"What is backed up from now on, and was not in an older point, he cannot read.",
	}, nil
}
