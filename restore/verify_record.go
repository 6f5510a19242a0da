package restore

import (
	"context"
	"errors"
	"strings"

	"github.com/cofferbackup/coffer/crypt"
)

// records checks what backups and prunes have left for each other. Without a hold or a
// repack record a point may be taken away that is to be kept; without the others every
// point restores, and the next prune takes them.
func (v *verify) records(ctx context.Context) error {
	for key, err := range v.Item.CheckRecords(ctx) {
		if key == "" && err != nil {
			return err
		}
		kind := strings.Split(string(key), "/")[2] // items/<item>/<kind>/
		switch {
		case err == nil:
		case kind == "holds" || kind == "repacks":
			err = v.found(ctx, key, "", err)
		case ctx.Err() == nil && !passing(err):
			v.put(Finding{Object: key, Err: err}, false)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readRepacks reads what stands in for packs that were rewritten or stored again. Where
// that does not open, points need what their own lists say.
func (v *verify) readRepacks(ctx context.Context) (err error) {
	v.repacks, err = v.Item.Repacks(ctx)
	if errors.Is(err, crypt.ErrDamaged) && v.Points == nil { // records tells of it
		return nil
	}
	return v.found(ctx, v.Item.RepackKey(""), "", err)
}
