package point

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/catalog"
)

// PickReadable finds the point of an item that a selector means, as Pick does, and
// has read read it. If that is the latest, it passes over those that are damaged. notes
// say which, and that the clock of the one it takes was wrong.
func PickReadable(ctx context.Context, it *catalog.Item, selector string, now time.Time, read func(catalog.PointName) error) (notes []string, err error) {
	var first error // why the newest does not open
	for before := catalog.PointName(""); ; {
		name, err := pickPoint(ctx, it, selector, now.Location(), before)
		if first != nil && errors.Is(err, catalog.ErrNoPoint) {
			return nil, first
		}
		if err != nil {
			return nil, err
		}
		err = read(name)
		if latest := selector == "" || selector == "latest"; !latest || !catalog.Unreadable(err) {
			if err == nil && latest && name.Time().Sub(now) > policy.ClockSkew {
				notes = append(notes, fmt.Sprintf("point %s of %s is dated in the future: the clock that made it was wrong, and another may be newer", name, it.Name()))
			}
			return notes, err
		}
		notes = append(notes, fmt.Sprintf("point %s of %s is passed over, as it does not open: %v", name, it.Name(), err))
		first, before = cmp.Or(first, err), name
	}
}

// noPoint is a catalog.ErrNoPoint that says it in one breath.
type noPoint struct{ item, selector string }

func (e noPoint) Error() string {
	if e.selector == "" || e.selector == "latest" {
		return "item " + e.item + " has no point"
	}
	return fmt.Sprintf("item %s has no point %q", e.item, e.selector)
}

func (noPoint) Unwrap() error { return catalog.ErrNoPoint }

// Pick finds the point of an item that a selector means (control.ParseSelector).
// Times without a zone are in loc.
func Pick(ctx context.Context, it *catalog.Item, selector string, loc *time.Location) (catalog.PointName, error) {
	return pickPoint(ctx, it, selector, loc, "")
}

// pickPoint is Pick among the points before one, unless that is "".
func pickPoint(ctx context.Context, it *catalog.Item, selector string, loc *time.Location, before catalog.PointName) (catalog.PointName, error) {
	sel, err := control.ParseSelector(selector, loc)
	if err != nil {
		return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%q names no point", selector), Next: "see what there is: coffer point list " + it.Name()}
	}
	var found []catalog.PointName
	for n, err := range it.PointNames(ctx) {
		if err != nil {
			return "", fault.Of(err)
		}
		if before != "" && n >= before {
			break
		}
		switch {
		case n.String() == selector || string(n) == selector:
			return n, nil
		case sel.Latest, !sel.AtOrBefore.IsZero() && !n.Time().After(sel.AtOrBefore):
			found = []catalog.PointName{n}
		case sel.Prefix != "" && (strings.HasPrefix(n.String(), sel.Prefix) || strings.HasPrefix(string(n), sel.Prefix)):
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.Names{Item: it.Name()}.Of(noPoint{it.Name(), selector})
	case 1:
		return found[0], nil
	}
	return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%d points of %s begin with %q", len(found), it.Name(), selector),
		Next: "write more of it: coffer point list " + it.Name()}
}
