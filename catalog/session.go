package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// ErrVoided: a prune has decided that this backup will not be, because it seemed to
// have ended long ago. What it put is there, so that another try is cheap.
var ErrVoided = errors.New("backup was given up by a prune before it ended")

// MaxSession is how long after it began a backup may be committed. Who was given up
// meanwhile finds a void, and those are kept for twice as long.
const MaxSession = 180 * 24 * time.Hour

// Session is a backup that has begun. It announces the name that its point will have,
// so that a prune can tell who may not have seen what it marked; the session is
// decided when there is something under that name: the point, or a void. A repack, or a
// repair, is a session too: what decides it is its record, or a void in the place of it.
type Session struct {
	Name    PointName
	Host    string
	Started time.Time
}

// sessionBody is what a session object holds.
type sessionBody struct {
	Host    string `cbor:"1,keyasint"`
	Started int64  `cbor:"2,keyasint"` // unix nanoseconds
}

// NewSession makes the name of a backup that begins now.
func NewSession(started time.Time, host string) *Session {
	name, _ := newPointName(started)
	return &Session{Name: name, Host: validText(host), Started: started.UTC()}
}

// Begin announces a new session.
func (it *Item) Begin(ctx context.Context, started time.Time, host string) (*Session, error) {
	s := NewSession(started, host)
	return s, it.Announce(ctx, s)
}

// Announce writes a session object. Only what the caller reads of marks and of the
// index after that may decide what its point leans on: a prune that finds no session
// takes it that whoever comes later sees its mark.
func (it *Item) Announce(ctx context.Context, s *Session) error {
	_, _, id, err := ParsePointName(string(s.Name))
	if err != nil {
		return err
	}
	body := sessionBody{Host: s.Host, Started: s.Started.UnixNano()}
	err = it.putSealed(ctx, it.SessionKey(s.Name), crypt.Session, id, body)
	if err != nil && !errors.Is(err, store.ErrExist) { // a Put that happened after all
		return fmt.Errorf("announce a backup of %s: %w", it.name, err)
	}
	// A crash here leaves a session that nobody will decide: the agent's next backup
	// voids it, or a prune does when it is old.
	return nil
}

// Sessions returns the names of the sessions that are there, oldest first, decided or
// not.
func (it *Item) Sessions(ctx context.Context) ([]PointName, error) {
	var names []PointName
	for entry, err := range it.named(ctx, "sessions") {
		if err != nil {
			return nil, fmt.Errorf("list sessions of %s: %w", it.name, err)
		}
		names = append(names, entry.name)
	}
	return names, nil
}

// Session reads a session.
func (it *Item) Session(ctx context.Context, name PointName) (*Session, error) {
	_, stamp, id, err := ParsePointName(string(name))
	if err != nil {
		return nil, err
	}
	var body sessionBody
	err = it.readSealed(ctx, it.SessionKey(name), crypt.Session, id, &body)
	if err == nil && !time.Unix(0, body.Started).Truncate(time.Millisecond).Equal(stamp) {
		err = fmt.Errorf("it is named after another time: %w", crypt.ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("read session %s of %s: %w", name, it.name, err)
	}
	return &Session{Name: name, Host: body.Host, Started: time.Unix(0, body.Started).UTC()}, nil
}

// Void decides that nothing comes of a session any more, neither a point nor a repack
// record, unless it has already: then it is committed. It may be called again and by
// several at once, and all of them are told the same.
//
// A void is an empty object under the name of the point, and one in the place of the
// record. They stay for long: who was given up may be asleep and not gone.
func (it *Item) Void(ctx context.Context, name PointName) (committed bool, err error) {
	if _, _, _, err := ParsePointName(string(name)); err != nil {
		return false, err
	}
	// A crash between the two leaves a session that is not decided yet.
	for _, key := range []store.Key{it.PointKey(name), it.RepackKey(name.ID())} {
		err := it.vault.objects.Put(ctx, key, store.Body{}, store.PutOptions{})
		if errors.Is(err, store.ErrExist) {
			var info store.Info
			info, err = it.vault.objects.Stat(ctx, key)
			committed = committed || info.Size > 0
		}
		if err != nil {
			return false, fmt.Errorf("void session %s of %s: %w", name, it.name, err)
		}
		if committed {
			break
		}
	}
	return committed, nil
}

// Decided tells whether a session is: it is a point or a repack record, or nothing comes
// of it any more. A session whose object is gone is decided, too: prunes delete those
// that are, and no others.
func (it *Item) Decided(ctx context.Context, name PointName) (bool, error) {
	committed, err := it.Committed(ctx, name)
	if err == nil && committed {
		return true, nil
	}
	if err != nil && !errors.Is(err, ErrNoPoint) {
		return false, err
	}
	// Void comes here last.
	_, err = it.vault.objects.Stat(ctx, it.RepackKey(name.ID()))
	if errors.Is(err, store.ErrNotExist) {
		_, serr := it.vault.objects.Stat(ctx, it.SessionKey(name))
		if err = serr; serr == nil {
			return false, nil
		}
		if errors.Is(serr, store.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("look at session %s of %s: %w", name, it.name, err)
	}
	return true, nil
}

// Committed tells whether the object under the name of a point is one. If not it is a
// void. ErrNoPoint if there is none.
func (it *Item) Committed(ctx context.Context, name PointName) (bool, error) {
	info, err := it.vault.objects.Stat(ctx, it.PointKey(name))
	if errors.Is(err, store.ErrNotExist) {
		err = ErrNoPoint
	}
	if err != nil {
		return false, fmt.Errorf("look at point %s of %s: %w", name, it.name, err)
	}
	return info.Size > 0, nil
}

// SessionKey returns the object key of a session.
func (it *Item) SessionKey(name PointName) store.Key { return it.prefix("sessions") + store.Key(name) }
