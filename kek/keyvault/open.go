package keyvault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/kek"
)

const (
	maxVersions = 2000
	maxOpening  = 8 // versions at a time
)

// Open opens every version of a key that can open something, the newest first, or
// the one that the URI names. A version is as new as its date of creation.
//
// Disabled versions are left out, and the newest must not be one: with an older one
// in its place new secrets would be wrapped with a key that its owner has replaced.
// That is kek.ErrDenied. A version outside its dates opens and does not wrap.
func Open(ctx context.Context, cfg Config) ([]kek.Key, error) {
	v, a, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	versions, err := v.openable(ctx, cfg.Name, a)
	if err != nil {
		return nil, err
	}
	keys := make([]kek.Key, 0, len(versions))
	for _, one := range versions {
		k, err := newKey(v, cfg.Name, one)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if why := outside(versions[0].facts, v.now()); why != "" {
		v.log.Warn("key opens and does not wrap", slog.Any("key", keys[0].Ref()), slog.String("version", versions[0].at.version), slog.String("why", why))
	}
	return keys, nil
}

// openable returns the versions that Open opens, and at least one.
func (v *vault) openable(ctx context.Context, name string, a address) ([]version, error) {
	wanted := []listed{{at: a}}
	if a.version == "" {
		var err error
		if wanted, err = v.list(ctx, a); err != nil {
			return nil, err
		}
		if err := v.enabled(wanted[0].at, wanted[0].facts); err != nil {
			return nil, err
		}
		wanted = slices.DeleteFunc(wanted, func(l listed) bool { return l.facts.Enabled == kek.No })
	}
	found := make([]*version, len(wanted))
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(maxOpening)
	for i, l := range wanted {
		group.Go(func() error {
			one, err := v.get(all, l.at)
			if err == nil {
				err = v.enabled(one.at, one.facts)
			}
			if err == nil {
				err = one.suitable()
			}
			if i > 0 && (errors.Is(err, kek.ErrUnsuitable) || is(err, codeDisabled)) {
				v.log.Warn("older version of a key left out", slog.String("key", name), slog.String("version", l.at.version), slog.Any("error", err))
				return nil
			}
			found[i] = &one
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if interrupted := kek.Interrupted(ctx, "open "+a.String()); interrupted != nil {
			return nil, interrupted
		}
		return nil, err
	}
	var versions []version
	for _, one := range found {
		if one != nil {
			versions = append(versions, *one)
		}
	}
	return versions, nil
}

// listed is a version as a list has it.
type listed struct {
	at    address
	facts kek.Facts
}

// list returns every version of a key, the newest first, and at least one.
func (v *vault) list(ctx context.Context, a address) ([]listed, error) {
	var got []listed
	_, err := v.call(ctx, request{verb: "list versions of", of: a, do: func(ctx context.Context) ([]byte, error) {
		found, err := v.pages(ctx, a)
		if err == nil {
			got = found
		}
		return nil, err
	}})
	if err != nil {
		return nil, err
	}
	if len(got) == 0 {
		return nil, &fault{class: kek.ErrMissing, doing: "open " + a.String(), says: "the key has no versions",
			next: "check the name in the key's URI; if the key was deleted, recover it: " + a.az("recover")}
	}
	slices.SortStableFunc(got, func(x, y listed) int { return y.facts.Created.Compare(x.facts.Created) })
	if len(got) > 1 && got[0].facts.Created.Equal(got[1].facts.Created) {
		return v.breakTie(ctx, a, got)
	}
	return got, nil
}

func (v *vault) pages(ctx context.Context, a address) ([]listed, error) {
	var got []listed
	for pager := v.keys.NewListKeyPropertiesVersionsPager(a.name, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Value {
			if item == nil || item.KID == nil || item.Attributes == nil {
				return nil, errors.New("an entry of the list lacks the key")
			}
			at, err := a.parseKID(string(*item.KID))
			if err != nil {
				return nil, &oddError{says: err.Error(), next: "find out who answers in its place"}
			}
			got = append(got, listed{at: at, facts: factsOf(item.Attributes)})
		}
		if len(got) > maxVersions {
			return nil, &oddError{says: fmt.Sprintf("the key has more than %d versions", maxVersions), next: "make a new key and rotate to it"}
		}
		if err := a.checkLink(value(page.NextLink)); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// checkLink returns an error unless the next page is in the same vault: the token
// goes along.
func (a address) checkLink(link string) error {
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "https" || strings.TrimSuffix(strings.ToLower(u.Host), ":443") != a.host {
		return &oddError{says: "the list of versions goes on elsewhere", next: "find out who answers in its place"}
	}
	return nil
}

// breakTie puts the version in front that the service takes for the newest, where
// two are of the same second.
func (v *vault) breakTie(ctx context.Context, a address, got []listed) ([]listed, error) {
	current, err := v.get(ctx, a.at(""))
	if err != nil {
		return nil, err
	}
	rank := func(l listed) int {
		if l.at.version == current.at.version {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(got, func(x, y listed) int {
		return cmp.Or(y.facts.Created.Compare(x.facts.Created), cmp.Compare(rank(x), rank(y)))
	})
	return got, nil
}
