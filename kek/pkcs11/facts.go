//go:build cgo && linux

package pkcs11

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/cofferbackup/coffer/kek"
)

// hardware says whether a token is a device, as far as its library tells: by the
// flag of its slot or of its mechanism. What tokens made of software say of
// themselves is not believed.
func hardware(lib *p11.Ctx, slot uint, info p11.TokenInfo) kek.Answer {
	maker, model := strings.ToLower(info.ManufacturerID), strings.ToLower(info.Model)
	for _, soft := range []string{"softhsm", "mozilla", "kryoptic", "gnome"} {
		if strings.Contains(maker, soft) {
			return kek.No
		}
	}
	if strings.Contains(model, "soft") { // SoftHSM, IBM SoftTok
		return kek.No
	}
	if s, err := lib.GetSlotInfo(slot); err == nil && s.Flags&p11.CKF_HW_SLOT != 0 {
		return kek.Yes
	}
	oaep := []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP, nil)}
	if m, err := lib.GetMechanismInfo(slot, oaep); err == nil && m.Flags&p11.CKF_HW != 0 {
		return kek.Yes
	}
	return kek.Unsaid
}

// Inspect asks the token. A token has no switch for its keys: one that is there is
// enabled. PKCS#11 says nothing of who may delete it.
func (k *key) Inspect(ctx context.Context) (kek.Facts, error) {
	if k.isClosed() {
		return kek.Facts{}, k.errClosed()
	}
	var facts kek.Facts
	_, err := k.token.use(ctx, "inspect", func(c *conn) ([]byte, error) {
		pair, err := k.look(c)
		if err != nil {
			return nil, err
		}
		facts, err = k.token.facts(c, candidate{pair: pair, id: k.id})
		return nil, err
	})
	if err != nil {
		return kek.Facts{}, err
	}
	return facts, nil
}

func (t *token) facts(c *conn, one candidate) (kek.Facts, error) {
	t.mu.Lock()
	facts := kek.Facts{Hardware: t.info.hardware, Enabled: kek.Yes}
	t.mu.Unlock()
	decrypts, err := c.read(one.pair, crypto11.CkaDecrypt)
	if err != nil {
		return kek.Facts{}, err
	}
	facts.MayUnwrap = kek.AnswerOf(len(decrypts) == 1 && decrypts[0] == 1)
	from, err := c.date(one.pair, crypto11.CkaStartDate)
	if err != nil {
		return kek.Facts{}, err
	}
	until, err := c.date(one.pair, crypto11.CkaEndDate)
	if err != nil {
		return kek.Facts{}, err
	}
	facts.NotBefore, facts.Created = from, from
	if made, ours := madeAt(one.id); ours {
		facts.Created = made
	}
	if !until.IsZero() {
		facts.Expires = until.AddDate(0, 0, 1) // it is good for that day
	}
	return facts, nil
}

// date reads a CK_DATE, which is eight digits. Zero: the token has none, or none
// that can be read: SoftHSM cannot read those of private keys.
func (c *conn) date(pair crypto11.SignerDecrypter, attribute crypto11.AttributeType) (time.Time, error) {
	value, err := c.read(pair, attribute)
	var f *fault
	if errors.As(err, &f) && (f.class == incapable || f.code == ckrGeneralError || f.code == ckrFunctionFailed) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	day, err := time.Parse("20060102", string(value))
	if err != nil {
		return time.Time{}, nil
	}
	return day, nil
}
