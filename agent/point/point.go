// Package point finds recovery points, opens them, and says what there is to say of them.
package point

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
)

// Config of a book: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	Vaults   *vault.Set
	Keys     *keyring.Keyring
	Clock    func() time.Time
	Log      *slog.Logger
}

// Book knows the points of the items of the configuration. It is safe for concurrent use.
type Book struct {
	cfg Config
}

// New returns a book.
func New(cfg Config) *Book { return &Book{cfg} }

// Open opens an item and one of its points, after a look at whether all that the
// point needs does open. to is where it would be restored to, "" if it is only read.
// The caller closes the item.
func (b *Book) Open(ctx context.Context, name, selector, to string) (*vault.Item, *catalog.Point, error) {
	it, p, _, err := b.OpenNoting(ctx, name, selector, to)
	return it, p, err
}

// OpenNoting is Open for who has somebody to tell what PickReadable notes, and that the
// local index cannot be used.
func (b *Book) OpenNoting(ctx context.Context, name, selector, to string) (*vault.Item, *catalog.Point, []string, error) {
	it, err := b.cfg.Vaults.ToRead(ctx, name)
	if err != nil {
		return nil, nil, nil, err
	}
	p, notes, err := b.Pick(ctx, it, selector, to)
	if err != nil {
		it.Close()
		return nil, nil, nil, err
	}
	return it, p, append(notes, it.Unindexed()...), nil
}

// Pick reads the point that a selector means.
func (b *Book) Pick(ctx context.Context, it *vault.Item, selector, to string) (p *catalog.Point, notes []string, err error) {
	var other error
	notes, err = PickReadable(ctx, it.Item, selector, b.cfg.Clock(), func(name catalog.PointName) error {
		if other = b.preflight(ctx, it, name, to); other != nil {
			return nil // with an older point it would be no better
		}
		other = it.WhenUp(ctx, func() error {
			p, err = it.Read(ctx, name)
			return nil
		})
		if other != nil {
			return nil
		}
		return err
	})
	err = cmp.Or(other, err)
	for _, n := range notes {
		b.cfg.Log.Warn("latest point", "vault", it.Vault.Name, "item", it.Name(), "says", n)
	}
	return p, notes, err
}

// Wire is a point of a vault as callers see it.
func Wire(vault string, p *catalog.Point) control.Point {
	s := p.Stats
	return control.Point{ID: p.Name.String(), Item: p.Item, Vault: vault, Time: p.Name.Time(), Host: p.Host, Kind: p.Kind, Tags: p.Tags,
		Stats: control.PointStats{Files: int64(s.Files + s.Others), Dirs: int64(s.Dirs), SourceBytes: int64(s.Bytes), ReadBytes: int64(s.Read),
			NewBytes: int64(s.New), StoredBytes: int64(s.Stored), Changed: int64(s.Changed), Changing: int64(s.Unquiet),
			Skipped: int64(s.Skipped), Seconds: time.Duration(p.Ended - p.Started).Seconds()}}
}
