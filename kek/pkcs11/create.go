//go:build cgo && linux

package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/cofferbackup/coffer/kek"
)

// Create makes a key of so many bits (0: kek.DefaultBits) in the token, as a new
// version if there are keys with its label. The key cannot leave the token and can
// do nothing but decrypt.
//
// The pair is made under another label and gets its own, with its id, when it has
// passed the test that Open makes. A crash before that leaves a pair labelled
// "NAME (unfinished)" that nothing uses; it may be deleted. A token that lets no
// label be changed makes the pair in one step; the end of its id is then random.
//
// If ctx is done before the token is, the key may come to be later.
func (p *Pool) Create(ctx context.Context, uri string, bits int) (kek.Ref, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return kek.Ref{}, fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	if bits == 0 {
		bits = kek.DefaultBits
	}
	if err := kek.CheckBits(bits); err != nil {
		return kek.Ref{}, err
	}
	if u.Object == "" || u.ID != nil {
		return kek.Ref{}, fmt.Errorf("%w: a new key needs object=NAME and no id: its id is made for it", kek.ErrUnsuitable)
	}
	t, err := p.hold(ctx, u)
	if err != nil {
		return kek.Ref{}, err
	}
	doing := "create " + u.String()
	c, err := t.connection(ctx, doing, nil)
	var ref kek.Ref
	if err == nil {
		_, err = t.calls.Do(ctx, doing, func() (_ []byte, err error) {
			ref, err = t.create(c, u, bits)
			return nil, t.explain(err)
		})
	}
	if err := errors.Join(err, t.release(p.patience(ctx))); err != nil {
		return kek.Ref{}, err
	}
	return ref, nil
}

func (t *token) create(c *conn, u URI, bits int) (kek.Ref, error) {
	made, err := t.nextVersion(c, u)
	if err != nil {
		return kek.Ref{}, err
	}
	var salt kek.Fingerprint
	if _, err := rand.Read(salt[:]); err != nil {
		return kek.Ref{}, fmt.Errorf("%w: make an id: %w", kek.ErrUnreachable, err)
	}
	temporary := candidate{id: newID(made, salt), label: []byte(u.Object + " (unfinished)")}
	k, err := t.generate(c, temporary, bits)
	if err != nil {
		return kek.Ref{}, err
	}
	final := candidate{id: newID(made, k.ref.Fingerprint), label: []byte(u.Object)}
	err = t.rename(c, u, temporary, final)
	if err != nil {
		err = errors.Join(err, k.priv.Delete())
	}
	if f := (*fault)(nil); errors.As(err, &f) && f.class == incapable {
		final.id = temporary.id
		k, err = t.generate(c, final, bits)
	}
	if err != nil {
		return kek.Ref{}, err
	}
	k.ref.URI, k.ref.Version = u.String(), version(final.id)
	return k.ref, nil
}

// nextVersion returns the time that makes a new key the newest, which is now unless
// the clock was set back or two keys are made in one second.
func (t *token) nextVersion(c *conn, u URI) (time.Time, error) {
	now := t.cfg.Now()
	found, err := t.candidates(c, u)
	if errors.Is(err, kek.ErrMissing) {
		return now, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	if last, ours := madeAt(found[0].id); ours && last.Unix() >= now.Unix() {
		return last.Add(time.Second), nil
	}
	return now, nil
}

// generate makes a pair and inspects it. A pair that fails is deleted.
func (t *token) generate(c *conn, as candidate, bits int) (*key, error) {
	public, err1 := crypto11.NewAttributeSetWithIDAndLabel(as.id, as.label)
	private, err2 := crypto11.NewAttributeSetWithIDAndLabel(as.id, as.label)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	public.AddIfNotPresent([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_VERIFY, false),
		p11.NewAttribute(p11.CKA_VERIFY_RECOVER, false),
		p11.NewAttribute(p11.CKA_WRAP, false),
	})
	private.AddIfNotPresent([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
		p11.NewAttribute(p11.CKA_SIGN, false),
		p11.NewAttribute(p11.CKA_SIGN_RECOVER, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
	})
	pair, err := c.ctx.GenerateRSAKeyPairWithAttributes(public, private, bits)
	if err != nil {
		return nil, c.faultOf(fmt.Errorf("generate %d-bit RSA key: %w", bits, err))
	}
	as.pair = pair
	k, err := t.inspect(c, as)
	if err != nil {
		return nil, errors.Join(err, pair.Delete())
	}
	return k, nil
}

// rename gives both halves of a pair their id and label, the private half last:
// that one is what others look for. crypto11 cannot, so it is done beside it, on
// the library that it has initialised.
func (t *token) rename(c *conn, u URI, from, to candidate) error {
	lib := p11.New(t.lib.path)
	if lib == nil {
		return c.faultOf(fmt.Errorf("load %s again", t.lib.path))
	}
	defer lib.Destroy() // which does not finalise it
	infos, err := tokensOf(lib)
	if code, ok := codeOf(err); ok && code == ckrNotInitialized {
		// p11-kit gives everyone who loads it a library of his own.
		return &fault{class: incapable, code: code, err: err}
	}
	if err != nil {
		return c.faultOf(err)
	}
	chosen, err := choose(u, infos)
	if err != nil {
		return err
	}
	session, err := lib.OpenSession(chosen.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return c.faultOf(fmt.Errorf("open session: %w", err))
	}
	defer lib.CloseSession(session)
	for _, half := range []uint{p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY} {
		if err := relabel(lib, session, half, from, to); err != nil {
			return c.faultOf(fmt.Errorf("name the new key: %w", err))
		}
	}
	return nil
}

func relabel(lib *p11.Ctx, session p11.SessionHandle, class uint, from, to candidate) error {
	err := lib.FindObjectsInit(session, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, class),
		p11.NewAttribute(p11.CKA_ID, from.id),
		p11.NewAttribute(p11.CKA_LABEL, from.label),
	})
	if err != nil {
		return err
	}
	objects, _, err := lib.FindObjects(session, 2)
	if err := errors.Join(err, lib.FindObjectsFinal(session)); err != nil {
		return err
	}
	if len(objects) != 1 {
		return fmt.Errorf("%d objects have its temporary id", len(objects))
	}
	return lib.SetAttributeValue(session, objects[0], []*p11.Attribute{
		p11.NewAttribute(p11.CKA_ID, to.id),
		p11.NewAttribute(p11.CKA_LABEL, to.label),
	})
}
