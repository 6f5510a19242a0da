package point

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// preflight opens every secret that a point needs, before anything else is done
// with it. If some do not open, the error names each key version that would open
// them, and the time of the points that hang on it.
func (b *Book) preflight(ctx context.Context, it *vault.Item, name catalog.PointName, to string) error {
	failed := make(map[uint32]error)
	for _, r := range it.KeyRecords() {
		if _, err := it.Secret(ctx, r.Generation); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, keyring.ErrUnrecorded) { // no key would help
				return fault.Of(err)
			}
			failed[r.Generation] = err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	needed, err := it.Generations(ctx, name, func(g uint32) bool { return failed[g] == nil })
	if err != nil {
		return fault.Of(err)
	}
	if slices.ContainsFunc(needed, func(g uint32) bool { return failed[g] != nil }) {
		needed = b.narrowed(ctx, it, name, needed)
	}
	var needs []string
	var cause error
	for _, g := range needed {
		if failed[g] == nil {
			continue
		}
		lines, err := b.missingKeys(ctx, it, g, failed[g])
		needs = append(needs, lines...)
		cause = errors.Join(cause, err)
	}
	if len(needs) == 0 {
		return nil
	}
	wire := control.Error{Code: control.CodeKeysInaccessible, Needs: needs,
		Message: fmt.Sprintf("point %s of %s does not open: keys that it needs are missing", name, it.Name()),
		Next:    fmt.Sprintf("bring a key back (coffer key check), or link another that opens it: coffer key link %s URI --restore-only", it.Vault.Name)}
	if to != "" {
		wire.Message = fmt.Sprintf("target %s does not have access to all keys that point %s of %s needs; nothing was written to it", to, name, it.Name())
		wire.Next += fmt.Sprintf("; then: coffer restore %s@%s %s", it.Name(), name, to)
	}
	return fault.New(wire, cause)
}

// narrowed returns those of the generations that a point is said to need which it
// does need: it may name packs of older points that nothing in its own tree is in any
// more. If that cannot be found out, because the tree itself does not open, all of
// them count.
func (b *Book) narrowed(ctx context.Context, it *vault.Item, name catalog.PointName, needed []uint32) []uint32 {
	exact := needed
	if err := it.WhenUp(ctx, func() error {
		p, err := it.Read(ctx, name)
		if err != nil {
			return err
		}
		packs, err := it.Reader.PacksOf(ctx, p.Root)
		if err != nil {
			return err
		}
		exact, err = it.GenerationsOf(ctx, maps.Keys(packs))
		return err
	}); err != nil {
		return needed
	}
	return exact
}

// missingKeys says for one generation which keys would open it, why each does not,
// and of what time the points are.
func (b *Book) missingKeys(ctx context.Context, it *vault.Item, generation uint32, err error) ([]string, error) {
	records := it.KeyRecords()
	i := slices.IndexFunc(records, func(r catalog.KeyRecord) bool { return r.Generation == generation })
	if i < 0 {
		return []string{fmt.Sprintf("the secret of generation %d, which has no key record: %v", generation, err)}, err
	}
	until := "now"
	for _, r := range records {
		if r.Generation == generation+1 {
			until = r.Made.Format(time.DateOnly)
		}
	}
	span := fmt.Sprintf("points of %s to %s", records[i].Made.Format(time.DateOnly), until)
	var failed *kek.UnwrapError
	if !errors.As(err, &failed) {
		return []string{fmt.Sprintf("%s: %v", span, err)}, err
	}
	var lines []string
	for _, t := range failed.Tried {
		lines = append(lines, fmt.Sprintf("%s: %v", keyVersionLine(t.Ref.Name, t.Ref.URI, t.Ref.Version, t.Ref.Fingerprint, span), t.Err))
	}
	for _, w := range failed.Unknown {
		lines = append(lines, fmt.Sprintf("%s: %s", keyVersionLine("", w.URI, w.Version, w.Fingerprint, span), b.whyNot(ctx, w)))
	}
	return lines, err
}

// whyNot says why no open key has the version that made a wrapping.
func (b *Book) whyNot(ctx context.Context, w kek.Wrapped) string {
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Settings().Keys)) {
		uri, _, _ := strings.Cut(b.cfg.Settings().Keys[name].URI, "?")
		if uri != w.URI && !strings.HasPrefix(uri, w.URI+"/") {
			continue
		}
		if _, err := b.cfg.Keys.Entry(ctx, name); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("key %s has not this version now: it is disabled or gone, or the config names another", name)
	}
	return "not in the config"
}

func keyVersionLine(name, uri, version string, f kek.Fingerprint, span string) string {
	if version != "" {
		version = " version " + version
	}
	if name != "" {
		return fmt.Sprintf("%s%s (%s, fingerprint %.12s), %s", name, version, uri, f, span)
	}
	return fmt.Sprintf("%s%s (fingerprint %.12s), %s", uri, version, f, span)
}
